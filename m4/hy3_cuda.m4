# SPDX-License-Identifier: Apache-2.0
# HY3_CUDA: the GPU backend hy3_cuda.so, a module of its own (cuda/), by nvcc where there is a CUDA
# toolkit; with --enable-cuda-emulation also hy3_cuda_emu.so, for tests only: the same sources by
# the C++ compiler, on an emulated GPU (cuda/emulation/). Sets cuda_report.
AC_DEFUN([HY3_CUDA], [
AC_ARG_WITH([cuda],
  [AS_HELP_STRING([--with-cuda=DIR],
    [CUDA toolkit for the GPU backend, or no (default: where nvcc is, or /usr/local/cuda)])],
  [], [with_cuda=check])
AC_ARG_ENABLE([cuda-emulation],
  [AS_HELP_STRING([--enable-cuda-emulation],
    [for tests only: also build the GPU backend for an emulated GPU; needs the headers of the CUDA
    toolkit; 'check': if they are found])],
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
  AC_CHECK_HEADERS([cuda_runtime.h cublas_v2.h nccl.h], [have_cuda_headers=yes],
    [have_cuda_headers=no; break])
  CPPFLAGS=$hy3_kept_flags])
AC_LANG_POP([C++])
cuda_emulation=no
AS_CASE([$enable_cuda_emulation:$have_cuda_headers],
  [yes:no], [AC_MSG_ERROR(m4_normalize([--enable-cuda-emulation needs cuda_runtime.h, cublas_v2.h
    and nccl.h; name the toolkit with --with-cuda=DIR]))],
  [yes:yes|check:yes], [cuda_emulation=yes])
AS_CASE([$with_cuda:$have_nvcc:$have_cuda_headers],
  [no:*|check:*|*:yes:yes], [],
  [AC_MSG_ERROR(m4_normalize([--with-cuda: nvcc, cuda_runtime.h, cublas_v2.h and nccl.h are not
    all in '$cuda_dir']))])
AS_IF([test $have_nvcc:$have_cuda_headers = yes:yes], [cuda_report="hy3_cuda.so by $NVCC"],
  [cuda_report="none: no CUDA toolkit with cuBLAS and NCCL (--with-cuda=DIR)"])
AS_IF([test $cuda_emulation = yes], [cuda_report="$cuda_report; emulated for tests"])
: ${NVCCFLAGS=-O3}
AC_SUBST([cuda_dir])
AM_CONDITIONAL([CUDA_MODULE], [test $have_nvcc:$have_cuda_headers = yes:yes])
AM_CONDITIONAL([CUDA_EMULATION], [test $cuda_emulation = yes])
])
