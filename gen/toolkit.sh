#!/usr/bin/env bash
# Installs the pinned CUDA compiler and libclang into DIR, from PyPI. Usage: gen/toolkit.sh DIR
# Every package is pinned: nvcc with a newer nvvm writes PTX that its own ptxas refuses.
set -euo pipefail
dir=${1:?usage: gen/toolkit.sh DIR}
python3 -m pip install --quiet --no-deps --no-compile --target "$dir" \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 \
    nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.2.86 \
    libclang==18.1.1
