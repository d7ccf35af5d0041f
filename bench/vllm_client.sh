#!/usr/bin/env bash
# vLLM's Rust bench client against a server: vllm_client.sh BASE_URL [WHEELS] [TOKENIZER]
# The client is one program inside the vllm wheel (336 MB, not for CI); nothing else is installed.
# Prompts go as token ids, because the client wants lengths that survive decoding exactly. It draws
# them from a tokenizer's vocabulary: TOKENIZER is a folder with tokenizer.json; left out, one of
# 10,000 words is made, as a .gguf has none that the client reads, and it would draw from 131,072.
set -euo pipefail
base=${1:?usage: vllm_client.sh BASE_URL [WHEELS] [TOKENIZER]}
wheels=${2:-target/wheels}
client=$wheels/vllm/vllm-rs
if [ ! -x "$client" ]; then
    mkdir -p "$wheels"
    python3 -m pip download --quiet --no-deps vllm==0.33.0 -d "$wheels"
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("vllm/vllm-rs", sys.argv[2])' \
        "$wheels"/vllm-*.whl "$wheels"
    chmod +x "$client"
fi
out=$(mktemp) words=$(mktemp -d)
tokenizer=${3:-$words}
python3 - "$words/tokenizer.json" <<'PY'
import json, sys
words = {f"w{i}": i for i in range(10000)}
json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
           "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
           "decoder": None, "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}},
          open(sys.argv[1], "w"))
PY
"$client" bench serve --backend openai --base-url "$base" --tokenizer "$tokenizer" \
    --dataset-name random --prompt-token-ids --input-len 32 --output-len 16 --num-prompts 64 \
    --max-concurrency 8 --temperature 0 --ignore-eos > "$out" 2>&1 || { cat "$out"; exit 1; }
grep -E 'Successful requests|Failed requests|Total (input|generated) tokens' "$out"
grep -Eq 'Successful requests: +64' "$out"
grep -Eq 'Failed requests: +0' "$out"
grep -Eq 'Total input tokens: +2048' "$out"
grep -Eq 'Total generated tokens: +1024' "$out"
