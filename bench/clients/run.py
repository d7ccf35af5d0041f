"""Pacer's load client beside SGLang's Rust client and vllm-rs, in one run against one mock server.

python3 bench/clients/run.py [--quick]     Python 3.11; downloads two wheels on first use

The mock (examples/mock_server.rs) answers with known delays and keeps what its socket saw, so that
every client is judged by the same witness:

- counts: requests and tokens as the client prints them, as the server counted them;
- turnaround: in a closed loop of C, from the end of request k to the arrival of request k + C;
  what a client adds between a place that became free and the request that takes it (its lateness);
- slip: in an open loop with a constant rate, how far behind its place in the schedule each request
  arrived, counted from the one that was earliest (sglang-bench has no constant rate);
- error: the client's mean TTFT against the server's own, from request received to first chunk;
- CPU: user and system time of the whole process, and its slope over the number of requests, which
  leaves out start-up and the making of prompts.

Writes bench/results/bench-clients.{json,md}.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import time
import urllib.request
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "clients"
FIRST_MS, GAP_MS, INPUT, OUTPUT = 20, 5, 64, 32
MODULE = "sglang/srt/rust_extensions/_bench.cpython-311-x86_64-linux-gnu.so"


def peers():
    """Takes the two compiled clients out of their wheels."""
    WORK.mkdir(parents=True, exist_ok=True)
    for package, member in [("sglang==0.5.23", MODULE), ("vllm==0.33.0", "vllm/vllm-rs")]:
        if (WORK / member).exists():
            continue
        name = package.split("=")[0]
        if not list(WORK.glob(f"{name}-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
            subprocess.run([*pip, "-d", str(WORK)], check=True)
        (wheel,) = WORK.glob(f"{name}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(member, WORK)
    (WORK / "vllm/vllm-rs").chmod(0o755)
    (WORK / "_bench.so").write_bytes((WORK / MODULE).read_bytes())
    # vllm-rs wants a tokenizer even where prompts go as token ids.
    words = {f"w{i}": i for i in range(10000)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "w0"}
    rest = {k: None for k in ("truncation", "padding", "normalizer", "post_processor", "decoder")}
    tokenizer = {"version": "1.0", "added_tokens": [], **rest,
                 "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (WORK / "tokenizer.json").write_text(json.dumps(tokenizer))


def commands(pacer, url, requests, concurrency, rate):
    """The same load in each client's words."""
    n, i, o = str(requests), str(INPUT), str(OUTPUT)
    load = ["--max-concurrency", str(concurrency)]
    if rate is not None:
        load = ["--request-rate", str(rate)]
    even = [] if rate is None else ["--burstiness", "1000000"]
    random = ["--num-prompts", n, "--random-input-len", i, "--random-output-len", o]
    exact = [*random, "--random-range-ratio", "1", *load]
    own = [pacer, "bench-serving", "--base-url", url, *exact, *even, "--vocab-size", "10000",
           "--output-file", "", "--disable-tqdm", "--backend"]
    loader = ("import importlib.util as u, sys; s = u.spec_from_file_location('_bench', sys.argv[1]);"
              "m = u.module_from_spec(s); s.loader.exec_module(m);"
              "m.run_argv(['sglang-bench', *sys.argv[2:]])")
    return {
        "pacer, /generate": [*own, "sglang"],
        "sglang-bench 0.5.23, /generate": [
            sys.executable, "-c", loader, str(WORK / "_bench.so"), "--backend", "sglang",
            "--base-url", url, "--dataset-name", "random-ids", "--tokenize-prompt",
            "--vocab-size", "10000", *exact, "--disable-retokenize", "--output-file", "/dev/null"],
        "pacer, /v1/completions": [*own, "vllm"],
        "vllm-rs 0.33.0, /v1/completions": [
            str(WORK / "vllm/vllm-rs"), "bench", "serve", "--backend", "openai", "--base-url", url,
            "--model", "mock", "--tokenizer", str(WORK), "--dataset-name", "random",
            "--prompt-token-ids", "--num-prompts", n, "--input-len", i, "--output-len", o, *load,
            *even, "--temperature", "0", "--ignore-eos", "--num-warmups", "1"],
    }


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())


def figure(text, *labels):
    """The number behind the first of `labels` in a printed table."""
    for label in labels:
        found = re.search(re.escape(label) + r"\s*([0-9.]+)", text)
        if found:
            return float(found.group(1))
    return None


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else None


def measured(url, command, requests, concurrency, rate):
    get(url + "/mark")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.time()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    wall = time.time() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode(errors="replace"))
    if done.returncode != 0:
        print(text[-2000:])
        raise SystemExit(f"{command[0]} failed: {done.returncode}")
    # Warm-up requests come first.
    truth = get(url + "/truth")[-requests:]
    received = [r[0] for r in truth]
    ended = sorted(r[3] for r in truth)
    turns = [a - b for a, b in zip(received[concurrency:], ended)] if rate is None else []
    ttft = sum(r[1] - r[0] for r in truth) / len(truth) / 1e3
    itl = sum((r[2] - r[1]) / (r[4] - 1) for r in truth) / len(truth) / 1e3
    row = {
        "requests": figure(text, "Successful requests:"),
        "input_tokens": figure(text, "Total input tokens:"),
        "output_tokens": figure(text, "Total generated tokens:"),
        "server_requests": len(truth),
        "server_output_tokens": sum(r[4] for r in truth),
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": wall,
        "turnaround_us": [quantile(turns, 0.5), quantile(turns, 0.99), max(turns, default=None)],
        "mean_ttft_ms": figure(text, "Mean TTFT (ms):"),
        "server_ttft_ms": ttft,
        "mean_tpot_ms": figure(text, "Mean TPOT (ms):"),
        "server_tpot_ms": itl,
    }
    late = re.search(r"Client lateness p50/p99/max \(ms\):\s*([0-9.]+) / ([0-9.]+) / ([0-9.]+)", text)
    if late:
        row["own_lateness_ms"] = [float(x) for x in late.groups()]
    if rate is not None:
        behind = [at - i * 1e6 / rate for i, at in enumerate(sorted(received))]
        slips = [b - min(behind) for b in behind] if even(command) else []
        row["slip_us"] = [quantile(slips, 0.5), quantile(slips, 0.99), max(slips, default=None)]
    return row


def even(command):
    return "--burstiness" in command


def three(values):
    return "-" if values[0] is None else " / ".join(f"{v:.0f}" for v in values)


def table(rows):
    head = ["client", "requests", "output tokens", "server's", "CPU s",
            "turnaround p50 / p99 / max µs", "slip p50 / p99 / max µs",
            "TTFT ms", "server's", "error", "TPOT ms", "server's"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name, r in rows.items():
        slip = three(r.get("slip_us", [None]))
        turn = three(r["turnaround_us"])
        error = (r["mean_ttft_ms"] / r["server_ttft_ms"] - 1) * 100
        lines.append(
            f"| {name} | {r['requests']:.0f} | {r['output_tokens']:.0f} | "
            f"{r['server_output_tokens']} | {r['cpu_s']:.3f} | {turn} | {slip} | {r['mean_ttft_ms']:.3f} | "
            f"{r['server_ttft_ms']:.3f} | {error:+.2f} % | {r['mean_tpot_ms']:.3f} | "
            f"{r['server_tpot_ms']:.3f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=str(ROOT / "target/release"), help="folder of the binaries")
    parser.add_argument("--quick", action="store_true", help="few requests: does it run at all?")
    parser.add_argument("--port", type=int, default=31999)
    options = parser.parse_args()
    peers()
    folder = pathlib.Path(options.bin)
    mock = subprocess.Popen([folder / "examples/mock_server", str(options.port), str(FIRST_MS),
                             str(GAP_MS)])
    url = f"http://127.0.0.1:{options.port}"
    few, many, rate, timed = (50, 100, 200, 100) if options.quick else (1000, 3000, 1000, 3000)
    result = {"date": datetime.date.today().isoformat(), "mock_ms": [FIRST_MS, GAP_MS],
              "command": "python3 bench/clients/run.py", "input": INPUT, "output": OUTPUT,
              "machine": machine(), "runs": {}}
    try:
        time.sleep(0.5)
        shapes = [(few, 64, None), (many, 64, None), (few, 1000, None), (timed, None, rate)]
        for requests, concurrency, rate in shapes:
            load = f"concurrency {concurrency}" if rate is None else f"{rate} requests a second"
            rows = result["runs"][f"{requests} requests, {load}"] = {}
            every = commands(str(folder / "pacer"), url, requests, concurrency, rate)
            for name, command in every.items():
                rows[name] = measured(url, command, requests, concurrency, rate)
    finally:
        mock.terminate()
        mock.wait()
    report(result, few, many, options.quick)


def machine():
    names = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} cores, Linux {os.uname().release}"


def report(result, few, many, quick):
    runs = result["runs"]
    small, large = runs[f"{few} requests, concurrency 64"], runs[f"{many} requests, concurrency 64"]
    slope = {n: (large[n]["cpu_s"] - small[n]["cpu_s"]) / (many - few) * 1e6 for n in small}
    result["cpu_us_per_request"] = slope
    lines = ["# Load clients side by side", "",
             f"{result['date']}, {result['machine']}. `{result['command']}`: one mock server with known",
             f"delays ({FIRST_MS} ms to the first token, {GAP_MS} ms between tokens), prompts of {INPUT}",
             f"token ids, {OUTPUT} output tokens, all clients in one run. What the columns mean stands in",
             "`bench/clients/run.py`.", "",
             f"CPU per request (slope from {few} to {many} requests at concurrency 64):", "",
             "| client | µs per request |", "| --- | ---: |"]
    lines += [f"| {n} | {us:.0f} |" for n, us in slope.items()]
    for title, rows in runs.items():
        lines += ["", f"## {title}", "", *table(rows)]
        own = {n: r["own_lateness_ms"] for n, r in rows.items() if "own_lateness_ms" in r}
        for name, (p50, p99, most) in own.items():
            lines.append(f"\n{name}, sent after its scheduled time by (p50 / p99 / max): "
                         f"{p50:.3f} / {p99:.3f} / {most:.3f} ms")
    text = "\n".join(lines) + "\n"
    print(text)
    if not quick:
        out = ROOT / "bench/results"
        (out / "bench-clients.md").write_text(text)
        (out / "bench-clients.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
