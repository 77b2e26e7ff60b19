/* hdf5.h - HDF5 with its complaints in our error texts. */
#ifndef HY3_BASE_HDF5_H
#define HY3_BASE_HDF5_H

#include <hdf5.h>

/* Local. Keeps HDF5 from printing; its texts go into ours. */
void hy3_hdf5_quiet(void);

/* Local. What HDF5 last complained about, "" if nothing. Static memory. */
const char *hy3_hdf5_text(void);

#endif
