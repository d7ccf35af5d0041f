#!/usr/bin/env bash
# Makes gen/bindings/cupti.rs and tests/cupti/layout.h from CUPTI's headers: where the fields of
# its records stand, found by the C compiler itself. Usage: gen/cupti.sh [--check]
# The headers are looked for in PACER_CUDA_TOOLKIT, else fetched from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
toolkit=${PACER_CUDA_TOOLKIT:-}
if [ -z "$toolkit" ] || [ ! -f "$toolkit/include/cupti.h" ]; then
    python3 -m pip install --quiet --no-deps --no-compile --target "$work/tk" \
        nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 \
        nvidia-cuda-crt==13.0.88
    toolkit=$work/tk/nvidia/cu13
fi
cc -I "$toolkit/include" -o "$work/layout" gen/cupti/layout.c
"$work/layout" > "$work/cupti.rs"
"$work/layout" c > "$work/layout.h"
if [ "${1:-}" = --check ]; then
    diff "$work/cupti.rs" gen/bindings/cupti.rs
    diff "$work/layout.h" tests/cupti/layout.h
    exit
fi
mkdir -p tests/cupti
cp "$work/cupti.rs" gen/bindings/cupti.rs
cp "$work/layout.h" tests/cupti/layout.h
