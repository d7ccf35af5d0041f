#!/usr/bin/env bash
# Pacer's load client beside SGLang's Rust client and vllm-rs, against one mock server with known
# delays, in one run: same counts? whose client is cheaper, whose is later?
# bash bench/clients/run.sh [REQUESTS] [CONCURRENCY] [OUTPUT]     (needs Python 3.11 with pip)
set -euo pipefail
cd "$(dirname "$0")/../.."
requests=${1:-2000} concurrency=${2:-64} output=${3:-32}
port=${PORT:-31999} work=${WORK:-target/clients}
first_ms=20 gap_ms=5 input=64
mkdir -p "$work"
cargo build --release --quiet --bin pacer --example mock_server
if [ ! -e "$work/sglang" ]; then
    python3 -m pip download --quiet --no-deps sglang==0.5.23 vllm==0.33.0 -d "$work"
    (cd "$work" && for w in *.whl; do python3 -m zipfile -e "$w" .; done; chmod +x vllm/vllm-rs)
fi
target/release/examples/mock_server "$port" "$first_ms" "$gap_ms" & mock=$!
trap 'kill $mock' EXIT
sleep 1
url=http://127.0.0.1:$port
count() { curl -s "$url/metrics" | awk -v n="$1" 'index($0, n) == 1 { print $2 }'; }

# Wall and processor seconds of a command, and what the server counted meanwhile.
measured() {
    local name=$1; shift
    local r0 t0; r0=$(count sglang:num_requests_total); t0=$(count sglang:generation_tokens_total)
    python3 - "$name" "$work/$name.log" "$@" <<'PY'
import resource, subprocess, sys, time
name, log, command = sys.argv[1], sys.argv[2], sys.argv[3:]
begun = time.time()
with open(log, "w") as out:
    code = subprocess.call(command, stdout=out, stderr=subprocess.STDOUT)
r = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{name}: exit {code}, {time.time() - begun:.2f} s wall, {r.ru_utime + r.ru_stime:.3f} s CPU")
PY
    echo "    server counted $(( $(count sglang:num_requests_total) - r0 )) requests," \
         "$(( $(count sglang:generation_tokens_total) - t0 )) tokens"
    grep -E "Successful requests|Total generated tokens:|Total input tokens:|(Mean|P99) (TTFT|TPOT|ITL)|lateness" \
        "$work/$name.log" | sed 's/^/    /' || tail -n 5 "$work/$name.log"
}

measured pacer target/release/pacer bench-serving --base-url "$url" --num-prompts "$requests" \
    --random-input-len $input --random-output-len "$output" --random-range-ratio 1 \
    --max-concurrency "$concurrency" --output-file "" --disable-tqdm
measured pacer-oai target/release/pacer bench-serving --backend vllm --base-url "$url" \
    --num-prompts "$requests" --random-input-len $input --random-output-len "$output" \
    --random-range-ratio 1 --max-concurrency "$concurrency" --output-file "" --disable-tqdm
measured sglang-rust env PYTHONPATH="$work/sglang/srt/rust_extensions" python3 -c "
import _bench, sys; _bench.run_argv(sys.argv[1:])" --backend sglang --base-url "$url" \
    --dataset-name random-ids --tokenize-prompt --vocab-size 10000 --num-prompts "$requests" \
    --random-input-len $input --random-output-len "$output" --random-range-ratio 1 \
    --max-concurrency "$concurrency" --disable-retokenize --output-file /dev/null
python3 - "$work/tokenizer.json" <<'PY'
import json, sys
words = {f"w{i}": i for i in range(10000)}
json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
           "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
           "decoder": None, "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}},
          open(sys.argv[1], "w"))
PY
measured vllm-rs "$work/vllm/vllm-rs" bench serve --backend vllm --base-url "$url" --model mock \
    --tokenizer "$work" --dataset-name random --prompt-token-ids --num-prompts "$requests" \
    --random-input-len $input --random-output-len "$output" --max-concurrency "$concurrency" \
    --ignore-eos --num-warmups 1
echo "machine: $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2), $(nproc) cores, $(date -u +%F)"
