#!/usr/bin/env bash
# vLLM's Rust bench client against a server with a tokenizer: vllm_client.sh BASE_URL [WHEELS]
# The client is one program inside the vllm wheel (336 MB, not for CI); nothing else is installed.
# Prompts go as token ids, because the client wants lengths that survive decoding exactly.
set -euo pipefail
base=${1:?usage: vllm_client.sh BASE_URL [WHEELS]}
wheels=${2:-target/wheels}
client=$wheels/vllm/vllm-rs
if [ ! -x "$client" ]; then
    mkdir -p "$wheels"
    python3 -m pip download --quiet --no-deps vllm==0.33.0 -d "$wheels"
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("vllm/vllm-rs", sys.argv[2])' \
        "$wheels"/vllm-*.whl "$wheels"
    chmod +x "$client"
fi
out=$(mktemp)
"$client" bench serve --backend openai --base-url "$base" --dataset-name random --prompt-token-ids \
    --input-len 32 --output-len 16 --num-prompts 64 --max-concurrency 8 --temperature 0 \
    --ignore-eos > "$out" 2>&1 || { cat "$out"; exit 1; }
grep -E 'Successful requests|Failed requests|Total (input|generated) tokens' "$out"
grep -Eq 'Successful requests: +64' "$out"
grep -Eq 'Failed requests: +0' "$out"
grep -Eq 'Total generated tokens: +1024' "$out"
