#!/usr/bin/env bash
# Everything that only a card can tell, in one call, on a machine that has a GPU and its driver and
# nothing else: no Rust, no nvcc, no network. Carry this folder, tests/golden and the program.
#
#     bench/gpu/run.sh PACER OUTDIR [STAGE…]
#
# Stages run one after another, each under its own time limit; a stage that fails or runs out of time
# is noted and the next one begins. A stage that has passed is not run again in the same OUTDIR, so
# the call can be repeated after an interruption. OUTDIR holds a log of each stage, the rows of every
# measurement (*.jsonl), stages.jsonl and summary.md. Exit 1 if a stage failed.
#
# PACER_GPU_SIZE=small runs every stage on tiny shapes: with the stand-in libcuda.so.1 in
# LD_LIBRARY_PATH that is how this script is tested. PACER_GOLDEN names another folder of golden models,
# PYTHON a Python with torch for the peers stage.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
all="card kernels bits golden kernel-bench calibrate decode-1b decode-8b batch-8b qwen3 serving profile peers"
[ $# -ge 2 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2; }
pacer=$(realpath -e "$1") || { echo "$1: no such program"; exit 2; }
mkdir -p "$2" && out=$(cd "$2" && pwd) || exit 2
shift 2
stages=${*:-$all}
for stage in $stages; do
    case " $all " in *" $stage "*) ;; *) echo "unknown stage $stage; there are: $all"; exit 2 ;; esac
done

golden=${PACER_GOLDEN:-$here/../../tests/golden}
size=${PACER_GPU_SIZE:-full}
case $size in full | small) ;; *) echo "PACER_GPU_SIZE=$size: full or small"; exit 2 ;; esac
# What a calibration is stored under: this run's own.
export XDG_CACHE_HOME=$out/cache

# Shapes: model folder, batch sizes, input and output lengths, repetitions.
pick() { if [ "$size" = small ]; then echo "$2"; else echo "$1"; fi; }
config() { pick "$here/configs/$1" "$here/configs/tiny"; }
small_flag=$(pick "" --small)

# bench-one-batch on dummy weights of a configuration; more flags follow.
one_batch() {
    local model=$1 rows=$2
    shift 2
    "$pacer" bench-one-batch --device cuda --load-format dummy --model-path "$(config "$model")" \
        --run-name "${run_name:-$model}" --result-filename "$out/$rows.jsonl" --max-total-tokens \
        "$(pick 160000 512)" "$@"
}

stage_card() {
    date -u
    nvidia-smi || echo "no nvidia-smi"
    nvidia-smi -q -d CLOCK,POWER,PERFORMANCE 2>/dev/null
    ldd --version | head -n 1
    "$pacer" --version
    "$pacer" info --device cuda || return 1
    ldconfig -p 2>/dev/null | grep -E 'libcuda\.|libcupti|libnvrtc'
    [ "$size" = small ] || timeout 20 find / -xdev -name 'libcupti.so*' 2>/dev/null | head -n 5
    true
}

stage_kernels() {
    if [ "$size" = small ]; then
        "$pacer" kernels check --device cuda --kernel "embed bf16" || return 1
        "$pacer" kernels check --device cuda --kernel "attention wgmma bf16 Shape { head_dim: 64, \
kv_heads: 1"
        return
    fi
    # A kernel that faults takes the context with it: then one process a family tells which.
    "$pacer" kernels check --device cuda --skip "wgmma bits" && return
    echo "== by family"
    local failed=0
    for family in add embed gated gather softcap rmsnorm rope page_copy moe sample logprobs ceiling \
        sm80_bf16_gemm sm80_f16_gemm sm90a_bf16_gemm sm90a_f16_gemm grouped_gemm quant_gemm \
        "attention bf16" "attention f16" "attention wgmma"; do
        timeout 120 "$pacer" kernels check --device cuda --kernel "$family" --skip "wgmma bits" \
            | grep -v '^pass' || true
        [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "FAILED FAMILY $family"; failed=1; }
    done
    return $failed
}

# Whether this card's wgmma rounds as its mma.sync does: a finding, of which either outcome is good
# to know. A failure here means that wgmma stays off.
stage_bits() {
    "$pacer" kernels check --device cuda --kernel "$(pick "wgmma bits" "wgmma bits: gemm, gated false")"
}

stage_golden() {
    local models=("$golden"/*/golden.json)
    [ "$size" = full ] || models=("$golden/llama/golden.json")
    "$pacer" kernels golden --device cuda "${models[@]%/golden.json}"
}

stage_kernel-bench() {
    rm -f "$out/kernels.jsonl"
    "$pacer" kernels bench --device cuda $small_flag --repeat "$(pick 20 2)" \
        --result-filename "$out/kernels.jsonl"
}

stage_calibrate() {
    "$pacer" calibrate --device cuda $small_flag
}

stage_decode-1b() {
    one_batch llama-3.2-1b one-batch --batch-size 1 --input-len $(pick "128 4096" 16) \
        --output-len "$(pick 64 3)" --repeat "$(pick 5 1)"
}

stage_decode-8b() {
    one_batch llama-3.1-8b one-batch --batch-size 1 --input-len $(pick "128 4096" 16) \
        --output-len "$(pick 64 3)" --repeat "$(pick 5 1)" &&
        run_name=llama-3.1-8b-no-graphs one_batch llama-3.1-8b one-batch --disable-cuda-graph \
            --batch-size 1 \
            --input-len "$(pick 128 16)" --output-len "$(pick 32 2)" --repeat "$(pick 3 1)"
}

stage_batch-8b() {
    one_batch llama-3.1-8b one-batch --batch-size $(pick "8 32" 2) --input-len $(pick "128 4096" 16) \
        --output-len "$(pick 32 2)" --repeat "$(pick 3 1)" &&
        one_batch llama-3.1-8b one-batch --batch-size "$(pick 128 3)" \
            --input-len "$(pick 1024 8)" --output-len "$(pick 32 2)" --repeat "$(pick 3 1)"
}

stage_qwen3() {
    one_batch qwen3-8b one-batch --batch-size $(pick "1 32" 1) --input-len "$(pick 1024 16)" \
        --output-len "$(pick 32 2)" --repeat "$(pick 3 1)"
}

stage_serving() {
    local serve="serve --device cuda --load-format dummy --model-path $(config llama-3.1-8b)"
    serve="$serve --max-total-tokens $(pick 160000 512)"
    "$pacer" bench-serving --launch "$serve" --num-prompts "$(pick 256 3)" \
        --max-concurrency "$(pick 32 2)" --random-input-len "$(pick 1024 16)" \
        --random-output-len "$(pick 128 2)" --random-range-ratio 1 \
        --vocab-size "$(pick 128000 200)" --ready-check-timeout-sec 200 \
        --output-file "$out/serving.jsonl"
}

stage_profile() {
    mkdir -p "$out/profile"
    PACER_PROFILER_DIR=$out/profile one_batch llama-3.1-8b profile-rows --batch-size 1 \
        --input-len "$(pick 1024 16)" --output-len "$(pick 16 3)" --repeat 1 --profile \
        --profile-steps 2 && ls -l "$out/profile" && [ -n "$(ls "$out/profile")" ]
}

# The same products, attention and decode loop by PyTorch (cuBLAS, SDPA, a CUDA graph).
stage_peers() {
    local python=${PYTHON:-}
    for candidate in python3 /opt/torch/.venv/bin/python; do
        [ -n "$python" ] || ! "$candidate" -c 'import torch' 2>/dev/null || python=$candidate
    done
    [ -n "$python" ] || { echo "no Python with torch here: nothing to compare with"; return 0; }
    "$python" "$here/peers.py" $small_flag $(pick "" "--device cpu") --output "$out/peers.jsonl"
}

limit() {
    case $1 in card | calibrate) echo 60 ;; peers | kernel-bench | kernels) echo 480 ;; *) echo 300 ;; esac
}

failed=""
for stage in $stages; do
    [ ! -f "$out/$stage.passed" ] || { echo "passed before  $stage"; continue; }
    begin=$(date +%s.%N)
    # A stage is a process group of its own, so that its time limit ends what it started too.
    export -f "stage_$stage" one_batch pick config
    export pacer out here golden size small_flag
    timeout -k 5 "$(limit "$stage")" bash -c "stage_$stage" > "$out/$stage.log" 2>&1 < /dev/null
    code=$?
    seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    result=passed
    [ "$code" -eq 0 ] || { result=failed; failed="$failed $stage"; }
    [ "$code" -ne 124 ] || result=timed-out
    [ "$code" -ne 0 ] || touch "$out/$stage.passed"
    printf '{"stage":"%s","result":"%s","exit":%d,"seconds":%s,"size":"%s"}\n' \
        "$stage" "$result" "$code" "$seconds" "$size" >> "$out/stages.jsonl"
    printf '%-10s %8s s  %s\n' "$result" "$seconds" "$stage"
    [ "$code" -eq 0 ] || tail -n 3 "$out/$stage.log" | cut -c 1-300 | sed 's/^/    /'
done

{
    echo "# $("$pacer" --version) on $(nvidia-smi --query-gpu=name,driver_version,clocks.sm \
        --format=csv,noheader 2>/dev/null || echo "a machine without nvidia-smi"), $(date -u +%F)"
    [ "$size" = full ] || echo "Tiny shapes, to try the script: no figure below means anything."
    echo; echo "| stage | result | seconds |"; echo "|---|---|---|"
    sed -E 's/.*"stage":"([^"]*)","result":"([^"]*)".*"seconds":([0-9.]*).*/| \1 | \2 | \3 |/' \
        "$out/stages.jsonl"
    for log in kernel-bench decode-1b decode-8b batch-8b qwen3 serving peers; do
        [ -s "$out/$log.log" ] || continue
        printf '\n## %s\n\n' "$log"
        sed 's/^/    /' "$out/$log.log"
    done
} > "$out/summary.md"
echo "written: $out/summary.md"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
