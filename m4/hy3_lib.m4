# SPDX-License-Identifier: Apache-2.0
# HY3_LIB(PREFIX, pkg-config module, Debian package): finds a library or notes what to install.
AC_DEFUN([HY3_LIB], [
  PKG_CHECK_MODULES([$1], [$2], [], [HY3_MISSING="$HY3_MISSING $3"])
])

# Reports all missing libraries at once, with the command that installs them.
AC_DEFUN([HY3_REPORT_MISSING], [
  AS_IF([test -n "$HY3_MISSING"],
  [AC_MSG_ERROR([libraries are missing; on Debian install them with: apt-get install$HY3_MISSING])])
])

# OpenMP, which Debian's build of oneDNN uses too.
AC_DEFUN([HY3_OPENMP], [
  AC_OPENMP
  AS_IF([test "x$ac_cv_prog_c_openmp" = xunsupported],
    [AC_MSG_ERROR([the compiler $CC has no OpenMP; install gcc])])
])

# oneDNN, version 2 or 3, which differ in names; not all distributions have a pkg-config file of it.
AC_DEFUN([HY3_DNNL], [
  AC_ARG_VAR([DNNL_CFLAGS], [C compiler flags for oneDNN])
  AC_ARG_VAR([DNNL_LIBS], [linker flags for oneDNN (default: -ldnnl)])
  : ${DNNL_LIBS=-ldnnl}
  hy3_kept_flags=$CPPFLAGS
  hy3_kept_libs=$LIBS
  CPPFLAGS="$CPPFLAGS $DNNL_CFLAGS"
  LIBS="$DNNL_LIBS $LIBS"
  AC_MSG_CHECKING([for oneDNN 2 or 3])
  AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <dnnl.h>
    #if DNNL_VERSION_MAJOR < 2 || DNNL_VERSION_MAJOR > 3
    #error another version
    #endif]], [[
    #if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    #else
    return dnnl_matmul_desc_init(NULL, NULL, NULL, NULL, NULL);
    #endif]])],
    [AC_MSG_RESULT([$DNNL_LIBS])],
    [AC_MSG_RESULT([no])
     HY3_MISSING="$HY3_MISSING libdnnl-dev"])
  CPPFLAGS=$hy3_kept_flags
  LIBS=$hy3_kept_libs
])
