"""SmolLM2 from its GGUF, served by `pacer serve` and by llama.cpp's llama-server in the same run.

128 tokens in, 64 out, at concurrency 1, 8 and 16, two threads each, the two interleaved: each round
loads first one server, then the other, in turns. The client for both is `pacer bench-serving`
against /v1/completions with the same prompts. One server at a time does work; the other is idle.
llama-server gets as many slots as there are requests in flight, its prompt cache off."""

import argparse
import datetime
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import quiet

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = "smollm2"
KEYS = {
    "output tokens/s": "output_throughput",
    "TTFT p50 ms": "median_ttft_ms",
    "TTFT p99 ms": "p99_ttft_ms",
    "ITL p50 ms": "median_itl_ms",
    "ITL p99 ms": "p99_itl_ms",
}


def flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = os.environ.get("PACER_LLAMA_SERVER", "llama-server")
    parser.add_argument("--llama-server", default=default, help="default PACER_LLAMA_SERVER, else PATH's")
    model = os.environ.get("PACER_SMOLLM2", "target/ci-models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--model", default=model, help="a GGUF file; default PACER_SMOLLM2")
    parser.add_argument("--pacer", default=str(ROOT / "target/release/pacer"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each server at each concurrency")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--serve", default="", help="more flags of pacer serve, in one string")
    parser.add_argument("--out", default=str(ROOT / "bench/results/serving-llama-server.json"))
    return parser.parse_args()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Running:
    def __init__(self, command, port):
        self.command, self.port, self.log = command, port, tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                return
            except OSError:
                time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"{' '.join(command)}: not ready\n{self.log.read().decode()[-3000:]}")

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.go_on()
        self.process.terminate()
        self.process.wait(60)


def load(chosen, port, concurrency, seed):
    """One run of the client: its row."""
    requests = max(4, 3 * concurrency)
    with tempfile.NamedTemporaryFile() as out:
        command = [chosen.pacer, "bench-serving", "--backend", "openai", "--model", MODEL]
        command += ["--base-url", f"http://127.0.0.1:{port}", "--vocab-size", "40000"]
        command += ["--num-prompts", str(requests), "--max-concurrency", str(concurrency)]
        command += ["--random-input-len", str(chosen.input_len), "--random-range-ratio", "1"]
        command += ["--random-output-len", str(chosen.output_len), "--seed", str(seed)]
        command += ["--disable-tqdm", "--output-file", out.name]
        if chosen.extra:
            command += ["--extra-request-body", json.dumps(chosen.extra)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        row = json.loads(out.read().splitlines()[-1])
    exact = (row["completed"], row["total_output_tokens"])
    if exact != (requests, requests * chosen.output_len):
        sys.exit(f"port {port}, concurrency {concurrency}: {exact} of {requests} requests")
    return row


def version(command):
    said = subprocess.run([command, "--version"], capture_output=True, text=True)
    return (said.stdout + said.stderr).strip().splitlines()[0]


def main():
    chosen = flags()
    chosen.extra = {"cache_prompt": False}
    most, threads = max(chosen.concurrency), str(chosen.threads)
    room = (chosen.input_len + chosen.output_len + 16) * most
    ports = {"pacer": free_port(), "llama-server": free_port()}
    ours = [chosen.pacer, "serve", "--device", "cpu", "--model-path", chosen.model]
    ours += ["--threads", threads, "--port", str(ports["pacer"]), "--disable-radix-cache"]
    ours += ["--served-model-name", MODEL, *chosen.serve.split()]
    theirs = [chosen.llama_server, "-m", chosen.model, "--port", str(ports["llama-server"])]
    theirs += ["-t", threads, "-tb", threads, "-np", str(most), "-c", str(room), "--no-webui"]
    servers = {"pacer": Running(ours, ports["pacer"]), "llama-server": Running(theirs, ports["llama-server"])}
    rows = []
    try:
        for server in servers.values():
            server.pause()
        for concurrency in chosen.concurrency:
            found = {name: [] for name in servers}
            for round_ in range(chosen.rounds):
                order = list(servers) if round_ % 2 == 0 else list(servers)[::-1]
                for name in order:
                    servers[name].go_on()
                    found[name].append(load(chosen, ports[name], concurrency, 100 * concurrency + round_))
                    servers[name].pause()
            for name, runs in found.items():
                row = {"server": name, "concurrency": concurrency, "rounds": chosen.rounds}
                for label, key in KEYS.items():
                    values = [run[key] for run in runs]
                    row[label] = round(statistics.median(values), 2)
                    row[label + " runs"] = [round(v, 2) for v in values]
                rows.append(row)
                print(json.dumps(row), flush=True)
    finally:
        for server in servers.values():
            server.stop()
    report(chosen, ours, theirs, rows)


def report(chosen, ours, theirs, rows):
    name = pathlib.Path(chosen.model).name
    bare = lambda command: " ".join([pathlib.Path(command[0]).name, *command[1:]]).replace(chosen.model, name)
    about = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} x {quiet.processor()}",
        "load_average": os.getloadavg()[0],
        "pacer": version(chosen.pacer),
        "llama_server": version(chosen.llama_server),
        "commands": [bare(ours), bare(theirs)],
        "client": f"pacer bench-serving --backend openai, {chosen.input_len} in, {chosen.output_len} out",
        "rows": rows,
    }
    out = pathlib.Path(chosen.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(about, indent=1) + "\n")
    lines = [f"# {name}: pacer serve beside llama-server", "",
             f"{about['date']}, {about['machine']}, {chosen.threads} threads, {about['client']}, "
             f"median of {chosen.rounds} interleaved rounds. {about['pacer']}; {about['llama_server']}.",
             "", *(f"    {command}" for command in about["commands"]), "",
             "| concurrency | server | " + " | ".join(KEYS) + " |", "| --- " * (2 + len(KEYS)) + "|"]
    for row in rows:
        values = " | ".join(str(row[label]) for label in KEYS)
        lines.append(f"| {row['concurrency']} | {row['server']} | {values} |")
    text = "\n".join(lines) + "\n"
    out.with_suffix(".md").write_text(text)
    print(text)


main()
