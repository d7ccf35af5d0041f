"""What the server itself costs: `pacer serve --device null` computes nothing, so requests a second,
time to first token and CPU time per token are those of sockets, HTTP, JSON, scheduler and queues.

server_overhead.py PACER [--out FILE]     needs CPython 3.11 (see sglang_client.py)

Load comes from SGLang's Rust client on the same machine, closed loop, streaming, token ids in
(random, 32), 64 tokens out. CPU time is the server process's own, from /proc.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
PORT = 30987
BASE = f"http://127.0.0.1:{PORT}"
OUTPUT = 64
VOCAB = 2048
CASES = [(1, 300), (64, 6000), (1024, 12000)]


def get(path):
    with urllib.request.urlopen(BASE + path, timeout=10) as answer:
        return answer.read().decode()


def figure(name):
    lines = [line for line in get("/metrics").splitlines() if line.startswith(name + "{")]
    return float(lines[0].rsplit(" ", 1)[1])


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def case(server, concurrency, requests):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "row.jsonl")
        command = [sys.executable, str(HERE / "sglang_client.py"), "--"]
        command += ["--backend", "sglang", "--base-url", BASE, "--dataset-name", "random-ids"]
        command += ["--tokenize-prompt", "--vocab-size", str(VOCAB), "--random-range-ratio", "1"]
        command += ["--random-input-len", "32", "--random-output-len", str(OUTPUT)]
        command += ["--num-prompts", str(requests), "--max-concurrency", str(concurrency)]
        command += ["--output-file", out, "--disable-retokenize"]
        cpu, tokens = cpu_seconds(server.pid), figure("sglang:generation_tokens_total")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        cpu = cpu_seconds(server.pid) - cpu
        tokens = figure("sglang:generation_tokens_total") - tokens
        row = json.loads(pathlib.Path(out).read_text().splitlines()[-1])
    assert row["completed"] == requests, f"{row['completed']} of {requests} succeeded"
    assert row["total_output_tokens"] == requests * OUTPUT, row["total_output_tokens"]
    return {
        "concurrency": concurrency,
        "requests": requests,
        "requests_per_s": round(row["request_throughput"], 1),
        "tokens_per_s": round(row["output_throughput"]),
        "median_ttft_ms": round(row["median_ttft_ms"], 3),
        "p99_ttft_ms": round(row["p99_ttft_ms"], 3),
        "median_itl_ms": round(row["median_itl_ms"], 3),
        "server_cpu_us_per_token": round(cpu / tokens * 1e6, 2),
        "loop_busy_max_ms": round(figure("pacer_loop_busy_seconds_max") * 1e3, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pacer")
    parser.add_argument("--out", default="bench/results/server_overhead.jsonl")
    options = parser.parse_args()
    command = [options.pacer, "serve", "--device", "null", "--port", str(PORT)]
    command += ["--max-running-requests", "1024", "--chunked-prefill-size", "8192"]
    command += ["--max-total-tokens", "400000"]
    # A small vocabulary: choosing a token is the sampler's work, not the server's.
    command += ["--json-model-override-args", json.dumps({"vocab_size": VOCAB})]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                get("/health")
                break
            except OSError:
                time.sleep(0.1)
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        about = {
            "command": " ".join(["pacer", *command[1:]]),
            "version": json.loads(get("/version")),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}",
            "load_average": os.getloadavg()[0],
        }
        pathlib.Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        for concurrency, requests in CASES:
            row = case(server, concurrency, requests) | about
            print(json.dumps(row), flush=True)
            with open(options.out, "a") as out:
                out.write(json.dumps(row) + "\n")
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
