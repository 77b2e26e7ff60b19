# HY3_CUDA: the GPU backend hy3_cuda.so, a module of its own (src/cuda). By nvcc where there is a CUDA toolkit; with
# --enable-cuda-emulation by the C++ compiler against an emulation of a GPU, for tests. Sets cuda_report.
AC_DEFUN([HY3_CUDA], [
AC_ARG_WITH([cuda],
  [AS_HELP_STRING([--with-cuda=DIR], [CUDA toolkit for the GPU backend, or no (default: where nvcc is, or /usr/local/cuda)])],
  [], [with_cuda=check])
AC_ARG_ENABLE([cuda-emulation],
  [AS_HELP_STRING([--enable-cuda-emulation], [for tests: the GPU backend on the CPU; needs the headers of the toolkit; 'check': where they are])],
  [], [enable_cuda_emulation=no])
AC_ARG_VAR([NVCC], [CUDA compiler])
AC_ARG_VAR([NVCCFLAGS], [flags for NVCC])
AC_LANG_PUSH([C++])
cuda_dir=/usr/local/cuda
have_cuda_headers=no
have_nvcc=no
AS_CASE([$with_cuda], [no|yes|check], [], [cuda_dir=$with_cuda])
AS_IF([test "x$with_cuda" != xno], [
  AC_PATH_PROG([NVCC], [nvcc], [no], [$cuda_dir/bin:$PATH])
  AS_IF([test "x$NVCC" != xno], [
    AS_CASE([$with_cuda], [yes|check], [cuda_dir=$(dirname "$(dirname "$(readlink -f "$NVCC")")")])
    have_nvcc=yes])
  hy3_kept_flags=$CPPFLAGS
  CPPFLAGS="$CPPFLAGS -I$cuda_dir/include"
  AC_CHECK_HEADERS([cuda_runtime.h cublas_v2.h nccl.h], [have_cuda_headers=yes], [have_cuda_headers=no; break])
  CPPFLAGS=$hy3_kept_flags])
AC_LANG_POP([C++])
cuda_kind=off
AS_CASE([$enable_cuda_emulation:$have_cuda_headers],
  [yes:no], [AC_MSG_ERROR([--enable-cuda-emulation needs cuda_runtime.h, cublas_v2.h and nccl.h; name the toolkit with --with-cuda=DIR])],
  [yes:yes|check:yes], [cuda_kind=emulation],
  [*:yes], [AS_IF([test "x$have_nvcc" = xyes], [cuda_kind=nvcc])])
AS_CASE([$with_cuda:$cuda_kind],
  [no:*|check:*|*:nvcc|*:emulation], [],
  [AC_MSG_ERROR([--with-cuda: nvcc, cuda_runtime.h, cublas_v2.h and nccl.h are not all in '$cuda_dir'])])
AS_CASE([$cuda_kind],
  [nvcc], [cuda_report="hy3_cuda.so by $NVCC"],
  [emulation], [cuda_report="hy3_cuda.so emulated on the CPU, for tests only"],
  [cuda_report="none: no CUDA toolkit with cuBLAS and NCCL (--with-cuda=DIR)"])
: ${NVCCFLAGS=-O3}
AC_SUBST([cuda_dir])
AM_CONDITIONAL([CUDA_MODULE], [test $cuda_kind != off])
AM_CONDITIONAL([CUDA_EMULATION], [test $cuda_kind = emulation])
AM_CONDITIONAL([HAVE_NVCC], [test $have_nvcc:$have_cuda_headers = yes:yes])
])
