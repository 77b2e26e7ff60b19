/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5.h - HDF5 with its complaints in our error texts. */
#ifndef HY3_BASE_HDF5_H
#define HY3_BASE_HDF5_H

#include <hdf5.h>

/* Local. Keeps HDF5 from printing; its texts go into ours. */
void hy3_hdf5_quiet(void);

/* Local. What HDF5 last complained about, "" if nothing. Static memory. */
const char *hy3_hdf5_text(void);

/* Local. Closes a file of the default driver whose content no longer matters, because writing it
 * has failed: what HDF5 still holds goes nowhere. H5Fclose would fail for the same reason as the
 * write, leave the file half open, and crash when the library is torn down (seen with 1.10.8). */
void hy3_hdf5_discard(hid_t file);

#endif
