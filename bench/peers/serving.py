"""`pacer serve` and llama-server: both started, one stopped while the other serves.

128 tokens in, 64 out, at several concurrencies. The client of both is `pacer bench-serving` against
/v1/completions, with the same prompts in each pair. llama-server gets as many slots as there are
requests in flight; neither keeps prompts of before."""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

MODEL = "served"
INPUT, OUTPUT = 128, 64
# Figure and its key in the client's result. The first two have a bar.
FIGURES = {
    "": "output_throughput",
    "ITL p99": "p99_itl_ms",
    "ITL p50": "median_itl_ms",
    "TTFT p50": "median_ttft_ms",
    "TTFT p99": "p99_ttft_ms",
}


class Server:
    """A server that works only inside `with`."""

    def __init__(self, command, port):
        self.port, self.log = port, tempfile.TemporaryFile()
        command = [str(word) for word in command]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                self.process.send_signal(signal.SIGSTOP)
                return
            except OSError:
                time.sleep(0.1)
        self.process.kill()
        self.log.seek(0)
        sys.exit(f"{' '.join(command)}: not ready\n{self.log.read().decode()[-3000:]}")

    def __enter__(self):
        self.process.send_signal(signal.SIGCONT)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGSTOP)

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(pacer, llama_server, file, threads, most, flags):
    """Both servers, for `most` requests at once; `flags` are more of `pacer serve`'s."""
    ports = free_port(), free_port()
    ours = [pacer, "serve", "--device", "cpu", "--model-path", file, "--threads", threads,
            "--port", ports[0], "--disable-radix-cache", "--served-model-name", MODEL, *flags]
    room = (INPUT + OUTPUT + 16) * most
    theirs = [llama_server, "-m", file, "--port", ports[1], "-t", threads, "-tb", threads,
              "-np", most, "-c", room, "--no-webui"]
    first = Server(ours, ports[0])
    try:
        return first, Server(theirs, ports[1])
    except SystemExit:
        first.stop()
        raise


def load(pacer, server, concurrency, seed):
    """`{figure: number}` of one run of the client: three requests for each place in flight."""
    requests = max(4, 3 * concurrency)
    with server, tempfile.NamedTemporaryFile() as out:
        command = [pacer, "bench-serving", "--backend", "openai", "--model", MODEL,
                   "--base-url", f"http://127.0.0.1:{server.port}", "--vocab-size", 40000,
                   "--num-prompts", requests, "--max-concurrency", concurrency,
                   "--random-input-len", INPUT, "--random-range-ratio", 1,
                   "--random-output-len", OUTPUT, "--seed", seed, "--disable-tqdm",
                   "--output-file", out.name, "--extra-request-body", '{"cache_prompt": false}']
        command = [str(word) for word in command]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        row = json.loads(out.read().splitlines()[-1])
    exact = row["completed"], row["total_output_tokens"]
    if exact != (requests, requests * OUTPUT):
        sys.exit(f"port {server.port}, concurrency {concurrency}: {exact} of {requests} requests")
    return {figure: row[key] for figure, key in FIGURES.items()}


def client(pacer, server, concurrencies):
    """A side of a pair: loads `server` at each concurrency, with other prompts each time."""
    pair = 0

    def run():
        nonlocal pair
        pair += 1
        found = {}
        for at_once in concurrencies:
            figures = load(pacer, server, at_once, 100 * at_once + pair)
            found |= {f"{at_once} {name}".strip(): value for name, value in figures.items()}
        return found

    return run
