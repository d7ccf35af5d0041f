#!/bin/sh
# Regenerates the PTX beside the sources. Usage: build.sh CUDA_HOME (holding bin/nvcc 13.0.88).
# The output depends only on the sources and the compiler: paths are cut from .file lines, and the
# table of mangled names, which holds a hash of the build path, is dropped. Line information names
# the innermost line of the .cu file itself: code inlined from a header gets its call site.
set -eu
cuda=${1:?usage: build.sh CUDA_HOME}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
PATH="$cuda/bin:$PATH"
export PATH
nvcc --version | grep -q 'V13\.0\.88' || { echo "build.sh: needs nvcc 13.0.88" >&2; exit 1; }

compile() { # FILE ARCH
  nvcc -O3 -std=c++17 -lineinfo -gencode="arch=compute_$2,code=compute_$2" -ptx -o "$1.tmp" "$1.cu"
  sed -E \
    -e 's#^([[:space:]]*\.file[[:space:]]+[0-9]+ )"([^"]*/)?([^"/]+)".*#\1"\3"#' \
    -e '/^[[:space:]]*\.loc[[:space:]]+1 /s#, function_name.*##' \
    -e 's#^([[:space:]]*\.loc[[:space:]]+)[2-9] .*, inlined_at (1 .*)#\1\2#' \
    -e '/^[[:space:]]*\.loc[[:space:]]+[2-9] /d' \
    -e '/^[[:space:]]*\.section[[:space:]]+\.debug_str/,/^[[:space:]]*}/d' \
    "$1.tmp" > "$1.ptx"
  rm "$1.tmp"
}

for name in gemm_sm80 rmsnorm rope softmax paged_decode topk sample int4_gemv split_sum scan; do
  compile "$name" 80
done
compile fp8 90
compile cluster_sum 90
compile relay 90
compile gemm_sm90 90a
