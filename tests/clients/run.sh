#!/usr/bin/env bash
# Real clients against a running server: run.sh PACER MODEL. Needs python3 with venv and curl.
# - the openai package, - every `$ curl` line of README.md, - SGLang's Rust bench client (where
#   python3 is 3.11, the version that its module is compiled for).
set -euo pipefail
cd "$(dirname "$0")/../.."
pacer=${1:?usage: run.sh PACER MODEL}
model=${2:?usage: run.sh PACER MODEL}
port=30000
work=${PACER_CLIENTS_DIR:-target/clients}
mkdir -p "$work"
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet openai==2.* 2>/dev/null ||
    "$work/venv/bin/python" -m pip install --quiet openai

"$pacer" serve --model-path "$model" --served-model-name default --port $port \
    2> "$work/server.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    curl -fs -o /dev/null "http://127.0.0.1:$port/health" && break
    kill -0 $server || { cat "$work/server.log"; exit 1; }
    sleep 0.2
done

"$work/venv/bin/python" tests/clients/openai_client.py "http://127.0.0.1:$port"

count=0
while IFS= read -r line; do
    bash -c "set -o pipefail; ${line/curl/curl -fsS --max-time 60}" > "$work/curl.out" ||
        { echo "FAILED: $line"; cat "$work/curl.out"; exit 1; }
    count=$((count + 1))
done < <(sed -n 's/^\$ \(curl .*\)/\1/p' README.md)
[ "$count" -ge 20 ] || { echo "README has $count curl lines"; exit 1; }
echo "curl: $count lines of README answered"

# What a stream's first event already says.
python3 - $port <<'PY'
import json, sys, urllib.request
ids = list(range(1000, 1064))
body = {"input_ids": ids, "stream": True, "sampling_params": {"max_new_tokens": 4}}
for cached in (0, 48):
    url = f"http://127.0.0.1:{sys.argv[1]}/generate"
    lines = urllib.request.urlopen(url, json.dumps(body).encode()).read().splitlines()
    meta = json.loads(lines[0][6:])["meta_info"]
    assert meta["completion_tokens"] == 1 and meta["cached_tokens"] == cached, meta
    assert meta["queue_time"] >= 0 and meta["finish_reason"] is None, meta
    assert meta["request_received_ts"] <= meta["forward_entry_time"] <= meta["prefill_finished_time"]
print("stream: cached_tokens, queue_time and times from the first event on")
PY

if [ "$(python3 -c 'import sys; print(sys.version_info[:2] == (3, 11))')" = True ]; then
    rm -f "$work/sglang.jsonl"
    python3 bench/sglang_client.py --wheels "$work/wheels" -- --backend sglang \
        --base-url "http://127.0.0.1:$port" --dataset-name random-ids --tokenize-prompt \
        --vocab-size 40000 --random-range-ratio 1 --random-input-len 32 --random-output-len 16 \
        --num-prompts 48 --max-concurrency 8 --disable-retokenize --flush-cache \
        --output-file "$work/sglang.jsonl" > "$work/sglang.log"
    python3 - "$work/sglang.jsonl" <<'PY'
import json, sys
row = json.loads(open(sys.argv[1]).read())
exact = (row["completed"], row["total_input_tokens"], row["total_output_tokens"])
assert exact == (48, 48 * 32, 48 * 16), exact
print("sglang 0.5.23 bench client: 48 of 48 requests, exact token totals")
PY
fi

kill -TERM $server
wait $server
echo "SIGTERM: exit 0"
