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

# oneDNN has no pkg-config file.
AC_DEFUN([HY3_DNNL], [
  AC_CHECK_HEADER([dnnl.h],
    [AC_CHECK_LIB([dnnl], [dnnl_matmul_desc_init], [DNNL_LIBS=-ldnnl],
      [HY3_MISSING="$HY3_MISSING libdnnl-dev"])],
    [HY3_MISSING="$HY3_MISSING libdnnl-dev"])
  AC_SUBST([DNNL_LIBS])
])
