# SPDX-License-Identifier: Apache-2.0
# HDF5 must be the MPI build: with a serial one, hy3 would compile and fail at run time.
AC_DEFUN([HY3_HDF5_PARALLEL], [
  AS_IF([test -n "$HDF5_LIBS"], [
    hy3_save_CPPFLAGS=$CPPFLAGS
    CPPFLAGS="$CPPFLAGS $MPI_CFLAGS $HDF5_CFLAGS"
    AC_MSG_CHECKING([whether HDF5 is parallel])
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <hdf5.h>
#ifndef H5_HAVE_PARALLEL
#error serial
#endif]])], [AC_MSG_RESULT([yes])],
      [AC_MSG_RESULT([no])
       HY3_MISSING="$HY3_MISSING libhdf5-mpich-dev"])
    CPPFLAGS=$hy3_save_CPPFLAGS
  ])
])
