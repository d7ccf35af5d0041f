"""What `pacer bench-serving` reports against what servers saw: python3 bench/clients/truth.py

1. A mock with known delays (examples/mock_server.rs) keeps when each request was received and each
   chunk written. Mean TTFT, TPOT and ITL must agree within 1 % at concurrency 1, 64 and 1,000, and
   totals exactly.
2. Against Pacer and, with --llama-server BINARY --model FILE.gguf, against llama-server: requests and
   tokens as reported must equal what the server's own counters (`/metrics`) grew by.

Writes bench/results/client-truth.{json,md}; exits 1 where something disagrees.
"""

import argparse
import datetime
import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# (concurrency, requests, rate, output tokens, ms to the first token, ms between tokens). At 1,000
# arrivals are spread, so that what is measured is not a burst of a thousand new connections, and
# each answer lasts a second, so that a thousand are in flight.
CASES = [(1, 20, None, 16, 100, 20), (64, 640, None, 16, 200, 50), (1000, 3000, 1000, 8, 545, 65)]


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serving(pacer, url, *more):
    """The row of a run."""
    command = [str(pacer), "bench-serving", "--base-url", url, "--json", "--output-file", "",
               "--disable-tqdm", "--random-range-ratio", "1", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def against_mock(pacer, mock):
    rows = []
    for concurrency, requests, rate, output, first, gap in CASES:
        at = port()
        server = subprocess.Popen([mock, str(at), str(first), str(gap)])
        url = f"http://127.0.0.1:{at}"
        try:
            time.sleep(0.5)
            load = [] if rate is None else ["--request-rate", str(rate), "--burstiness", "1000000"]
            row = serving(pacer, url, "--num-prompts", str(requests), "--max-concurrency",
                          str(concurrency), "--random-input-len", "16", "--random-output-len",
                          str(output), "--vocab-size", "1000", "--warmup-requests", "0", *load)
            truth = json.loads(get(url + "/truth"))
            ttft = mean(r[1] - r[0] for r in truth) / 1e3
            tpot = mean((r[2] - r[1]) / (r[4] - 1) for r in truth) / 1e3
            pairs = {
                "TTFT": (row["mean_ttft_ms"], ttft),
                "TPOT": (row["mean_tpot_ms"], tpot),
                "ITL": (row["mean_itl_ms"], tpot),
            }
            rows.append({
                "concurrency": concurrency, "requests": requests, "rate": rate,
                "mock_ms": [first, gap], "output": output,
                "in_flight": row["max_concurrent_requests"],
                "times_ms": pairs,
                "counts": {
                    "requests": (row["completed"], len(truth)),
                    "output tokens": (row["total_output_tokens"], sum(r[4] for r in truth)),
                    "input tokens": (row["total_input_tokens"], 16 * len(truth)),
                },
                "lateness_ms": {k: row["client"][f"lateness_{k}_ms"] for k in ("p50", "p99", "max")},
                "client_cpu_share": row["client"]["cpu_share"],
            })
        finally:
            server.terminate()
            server.wait()
    return rows


def wait(url, process):
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server ended: {process.returncode}")
        try:
            get(url + "/health")
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server was not ready within 60 s")


COUNTERS = {
    "requests": ["sglang:num_requests_total"],
    "input tokens": ["sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"],
    "output tokens": ["sglang:generation_tokens_total", "llamacpp:tokens_predicted_total"],
}


def counters(url):
    text, found = get(url + "/metrics"), {}
    for what, names in COUNTERS.items():
        for name in names:
            values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.M)
            if values:
                found[what] = sum(float(v) for v in values)
    return found


def against_server(name, command, pacer, backend, more):
    at = port()
    server = subprocess.Popen([*command, "--port", str(at)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{at}"
    try:
        wait(url, server)
        before = counters(url)
        row = serving(pacer, url, "--backend", backend, "--num-prompts", "16", "--max-concurrency",
                      "4", "--random-input-len", "32", "--random-output-len", "8",
                      "--warmup-requests", "0", *more)
        after = counters(url)
    finally:
        server.terminate()
        server.wait()
    ours = {"requests": row["completed"], "input tokens": row["total_input_tokens"],
            "output tokens": row["total_output_tokens"]}
    counts = {k: (ours[k], int(after[k] - before.get(k, 0))) for k in ours if k in after}
    return {"server": name, "backend": backend, "requests": row["completed"], "counts": counts}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=str(ROOT / "target/release"), help="folder of the binaries")
    parser.add_argument("--llama-server")
    parser.add_argument("--model")
    options = parser.parse_args()
    pacer = pathlib.Path(options.bin) / "pacer"
    mock = against_mock(pacer, pathlib.Path(options.bin) / "examples/mock_server")
    servers = [against_server("pacer, default configuration", [str(pacer), "serve"], pacer, "pacer", [])]
    servers.append(against_server("pacer, default configuration", [str(pacer), "serve"], pacer,
                                  "openai", []))
    if options.llama_server:
        llama = [options.llama_server, "-m", options.model, "--metrics", "-np", "4", "-c", "4096"]
        for backend in ("openai", "openai-chat"):
            # Its counter leaves out what its prompt cache held: chat templates share a beginning.
            more = ["--extra-request-body", '{"cache_prompt": false}']
            if backend == "openai-chat":
                more += ["--tokenizer", options.model]
            else:
                more += ["--vocab-size", "40000"]
            servers.append(against_server("llama-server", llama, pacer, backend, more))
    report(mock, servers)


def report(mock, servers):
    cpu = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    about = {"date": datetime.date.today().isoformat(), "machine": f"{cpu[0]}, {len(cpu)} cores",
             "command": "python3 bench/clients/" + " ".join([pathlib.Path(sys.argv[0]).name])}
    wrong = []
    lines = ["# What the client reports against what servers saw", "",
             f"{about['date']}, {about['machine']}. `{about['command']}`; the mock answers with",
             "known delays and keeps its own times.", "",
             "| concurrency | requests | figure | client ms | server ms | difference |",
             "| ---: | ---: | --- | ---: | ---: | ---: |"]
    for r in mock:
        for name, (ours, theirs) in r["times_ms"].items():
            off = (ours / theirs - 1) * 100
            lines.append(f"| {r['concurrency']} | {r['requests']} | {name} | {ours:.3f} | "
                         f"{theirs:.3f} | {off:+.3f} % |")
            if abs(off) > 1:
                wrong.append(f"{name} at concurrency {r['concurrency']}: {off:+.2f} %")
    late = [f"{r['lateness_ms']['p99']:.3f} ms at {r['rate']}/s" for r in mock if r["rate"]]
    lines += ["", f"99 % of requests left within {', '.join(late)} of their scheduled time.", "",
              "| server | API | count | client | server |", "| --- | --- | --- | ---: | ---: |"]
    named = [(f"mock, concurrency {r['concurrency']}", "sglang", r["counts"]) for r in mock]
    named += [(r["server"], r["backend"], r["counts"]) for r in servers]
    for server, api, counts in named:
        for what, (ours, theirs) in counts.items():
            lines.append(f"| {server} | {api} | {what} | {ours} | {theirs} |")
            if ours != theirs:
                wrong.append(f"{server}: {what}: {ours} against {theirs}")
    text = "\n".join(lines) + "\n"
    print(text)
    out = ROOT / "bench/results"
    (out / "client-truth.md").write_text(text)
    whole = {**about, "mock": mock, "servers": servers}
    (out / "client-truth.json").write_text(json.dumps(whole, indent=1) + "\n")
    if wrong:
        raise SystemExit("disagrees: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
