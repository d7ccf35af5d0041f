#!/usr/bin/env bash
# Builds a fuzz target with the stable toolchain and runs it: run.sh TARGET [RUNS].
# Coverage-guided (libFuzzer), without a sanitizer: debug assertions and overflow checks are on.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?usage: run.sh TARGET [RUNS]}
runs=${2:-200000}
triple=$(rustc -vV | sed -n 's/^host: //p')
# What the fuzzing front end passes for "no sanitizer". With an explicit --target, build scripts
# and macros are built without it.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=16"
cargo build --release --target "$triple" --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target"
seeds=()
if [ -d "seeds/$target" ]; then seeds=("seeds/$target"); fi
dict=()
if [ -f "dicts/$target" ]; then dict=("-dict=dicts/$target"); fi
# Programs are short: long ones cost time and add no new paths.
longest=65536
case "$target" in ptx_*) longest=4096 ;; esac
exec "target/$triple/release/$target" "corpus/$target" "${seeds[@]}" "${dict[@]}" \
    -artifact_prefix="artifacts/$target/" -runs="$runs" \
    -rss_limit_mb=512 -malloc_limit_mb=64 -timeout=5 -max_len="$longest" -print_final_stats=1
