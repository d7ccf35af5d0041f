#!/usr/bin/env python3
"""What profiling costs: pairs of runs, interleaved, on one machine.

Two servers of the same model stand side by side, one without the recorder (--disable-profiler),
one with it. Each pair sends the same load to both, in an order that alternates, and gives one
ratio of throughput and one of p99 inter-token latency. With --capture the second server also
records a full profile during its half of the pair. The median of the ratios is printed with a
95 % interval from the order statistics, so no assumption about their distribution is made.

  python3 bench/profile_overhead.py target/release/pacer [--pairs 20] [--capture]
      [--clients 4] [--tokens 64] [-- --model-path …]

Standard library only. Run it on a quiet machine; it says how busy the machine was.
"""
import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request


class Server:
    def __init__(self, pacer, flags):
        self.folder = tempfile.TemporaryDirectory(prefix="pacer-overhead-")
        env = dict(os.environ, PACER_PROFILER_DIR=self.folder.name)
        self.child = subprocess.Popen([pacer, "serve", "--port", "0", *flags],
                                      stderr=subprocess.PIPE, text=True, env=env)
        for line in self.child.stderr:
            if line.startswith("ready: http://"):
                self.host, port = line.split("//")[1].strip().strip("/").rsplit(":", 1)
                self.port = int(port)
                break
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=lambda: [None for _ in self.child.stderr], daemon=True).start()

    def post(self, path, body):
        request = urllib.request.Request(f"http://{self.host}:{self.port}{path}",
                                         json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def stream(self, prompt, tokens, gaps):
        """Token gaps of one streamed request, seconds."""
        body = json.dumps({"input_ids": prompt, "stream": True, "sampling_params": {
            "max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}}).encode()
        with socket.create_connection((self.host, self.port)) as s:
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n"
                      b"Content-Length: %d\r\n\r\n%s" %
                      (self.host.encode(), self.port, len(body), body))
            last, rest = None, b""
            while True:
                data = s.recv(1 << 16)
                now = time.perf_counter()
                if not data:
                    return
                rest += data
                *events, rest = rest.split(b"\n\n")
                for event in events:
                    if b"data: {" in event:
                        if last is not None:
                            gaps.append(now - last)
                        last = now

    def close(self):
        self.child.terminate()
        self.child.wait()
        self.folder.cleanup()


def load(server, clients, tokens):
    """Throughput (tokens/s) and p99 gap (s) of a closed loop of `clients` streams."""
    gaps, threads = [[] for _ in range(clients)], []
    began = time.perf_counter()
    for i in range(clients):
        prompt = [(7 * i + j) % 250 + 1 for j in range(32)]
        threads.append(threading.Thread(target=server.stream, args=(prompt, tokens, gaps[i])))
        threads[-1].start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    every = sorted(g for one in gaps for g in one)
    return clients * tokens / took, every[min(len(every) - 1, int(0.99 * len(every)))]


def interval(values):
    """Median with its 95 % interval by order statistics (binomial, p = 1/2)."""
    values, n = sorted(values), len(values)
    below, k = 0.0, 0
    while below + math.comb(n, k) / 2**n < 0.025:
        below += math.comb(n, k) / 2**n
        k += 1
    k = max(k - 1, 0)
    return statistics.median(values), values[k], values[n - 1 - k]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pacer")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--capture", action="store_true")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    words, own = sys.argv[1:], []
    if "--" in words:
        words, own = words[:words.index("--")], words[words.index("--") + 1:]
    args = parser.parse_args(words)
    flags = own or ["--load-format", "dummy"]
    off = Server(args.pacer, [*flags, "--disable-profiler"])
    on = Server(args.pacer, flags)
    try:
        for server in (off, on):
            load(server, args.clients, args.tokens)
        throughput, p99, stops = [], [], []
        for pair in range(args.pairs):
            result = {}
            for server in ((off, on) if pair % 2 == 0 else (on, off)):
                if server is on and args.capture:
                    on.post("/start_profile", {"profile_id": f"pair{pair}"})
                result[server] = load(server, args.clients, args.tokens)
                if server is on and args.capture:
                    began = time.perf_counter()
                    on.post("/stop_profile", {})
                    stops.append(time.perf_counter() - began)
            throughput.append(result[on][0] / result[off][0])
            p99.append(result[on][1] / result[off][1])
        what = "a full capture" if args.capture else "the recorder"
        for name, ratios in (("throughput", throughput), ("p99 inter-token latency", p99)):
            m, low, high = interval(ratios)
            print(f"{name} with {what} / without: {m:.4f} [{low:.4f}, {high:.4f}] "
                  f"({len(ratios)} pairs)")
        if stops:
            print(f"longest stop: {max(stops) * 1e3:.1f} ms")
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    finally:
        off.close()
        on.close()


if __name__ == "__main__":
    main()
