#!/usr/bin/env python3
"""What profiling costs: pairs of runs, interleaved, on one machine.

Two servers of the same model stand side by side, one without the recorder (--disable-profiler),
one with it. Each pair sends the same load to both, --turns times, in an order that alternates, and
gives one ratio of throughput, one of p99 inter-token latency and one of the server's processor
time. Short loads and many turns cancel what the machine does to both for seconds at a time. A
process is some per cent faster or slower than another for as long as it lives: with --starts both
are started anew so many times, and the interval is that of the starts' medians. With
--capture the second server also records a full profile during the pair, and with
--stop-under-load it is told to stop, and writes its trace, while the load goes on; then the
longest gap between two tokens is compared, too. --baseline recorder compares with a server whose
flight recorder is on instead of one without. The median of the ratios is printed with a 95 %
interval from the order statistics, so no assumption about their distribution is made.

  python3 bench/profile_overhead.py target/release/pacer [--pairs 20] [--turns 1] [--starts 1] [--capture]
      [--stop-under-load] [--baseline off|recorder] [--without PACER] [--clients 4] [--tokens 64]
      [-- --model-path …]

--without names a build with the recorder compiled out (cargo build --release
--no-default-features), which then is the baseline.

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

    def cpu(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.child.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.child.terminate()
        self.child.wait()
        self.folder.cleanup()


def load(server, clients, tokens, after=None):
    """Seconds, processor seconds and token gaps (s) of a closed loop of `clients` streams;
    `after` = (seconds, what to do then) happens meanwhile."""
    gaps, threads = [[] for _ in range(clients)], []
    cpu, began = server.cpu(), time.perf_counter()
    timer = threading.Timer(*after) if after else None
    if timer:
        timer.start()
    for i in range(clients):
        prompt = [(7 * i + j) % 250 + 1 for j in range(32)]
        threads.append(threading.Thread(target=server.stream, args=(prompt, tokens, gaps[i])))
        threads[-1].start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    cpu = server.cpu() - cpu
    if timer:
        timer.join()
    return {"took": took, "cpu": cpu, "gaps": [g for one in gaps for g in one]}


def whole(turns, tokens):
    """Turns of one side as one: tokens/s, p99 and longest gap, processor time."""
    gaps = sorted(g for turn in turns for g in turn["gaps"])
    return {"rate": tokens * len(turns) / sum(turn["took"] for turn in turns),
            "p99": gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))], "longest": gaps[-1],
            "cpu": sum(turn["cpu"] for turn in turns)}


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
    parser.add_argument("--starts", type=int, default=1, help="times that both are started anew")
    parser.add_argument("--turns", type=int, default=1, help="loads of each side in a pair")
    parser.add_argument("--without", help="another build, without the recorder, as the baseline")
    parser.add_argument("--capture", action="store_true")
    parser.add_argument("--stop-under-load", action="store_true")
    parser.add_argument("--baseline", choices=["off", "recorder"], default="off")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    words, own = sys.argv[1:], []
    if "--" in words:
        words, own = words[:words.index("--")], words[words.index("--") + 1:]
    args = parser.parse_args(words)
    args.capture |= args.stop_under_load
    flags = own or ["--load-format", "dummy"]
    plain = [*flags, *(["--disable-profiler"] * (args.baseline == "off"))]
    sides = [("off", args.without or args.pacer, plain), ("on", args.pacer, flags)]
    found, stops = [], []
    for start in range(args.starts):
        servers = {}
        try:
            for name, binary, words in sides if start % 2 == 0 else sides[::-1]:
                servers[name] = Server(binary, words)
            found.append(pairs(args, servers["off"], servers["on"], start, stops))
        finally:
            for server in servers.values():
                server.close()
    show(args, found, stops)


def pairs(args, off, on, start, stops):
    """`--pairs` pairs of (with, without) of two servers that live as long."""
    for server in (off, on):
        usual = load(server, args.clients, args.tokens)["took"]
    found = []

    def stop():
        began = time.perf_counter()
        answer = on.post("/stop_profile", {})
        stops.append(time.perf_counter() - began)
        lost = [d["lost_records"] + d["left_out_records"] for d in answer["details"]]
        if sum(lost):
            print(f"note: {sum(lost)} records lost or left out")

    for pair in range(args.pairs):
        if args.capture:
            on.post("/start_profile", {"profile_id": f"start{start}pair{pair}"})
        order, turns = [], {on: [], off: []}
        for turn in range(pair, pair + args.turns):
            order += [off, on] if turn % 2 == 0 else [on, off]
        last = len(order) - 1 - order[::-1].index(on)
        for i, server in enumerate(order):
            under_load = args.capture and args.stop_under_load and i == last
            after = (usual / 2, stop) if under_load else None
            turns[server].append(load(server, args.clients, args.tokens, after))
        if args.capture and not args.stop_under_load:
            stop()
        found.append([whole(turns[side], args.clients * args.tokens) for side in (on, off)])
    return found


def show(args, starts, stops):
    """Prints the ratios: of the pairs of one start, or of the medians of several."""
    found = [pair for start in starts for pair in start]
    what = "a full capture" if args.capture else "the recorder"
    names = [("throughput", "rate"), ("p99 inter-token latency", "p99"),
             ("processor time of the server", "cpu")]
    for name, key in names:
        ratios = [[a[key] / b[key] for a, b in start] for start in starts]
        if len(ratios) > 1:
            ratios = [[statistics.median(start) for start in ratios]]
        m, low, high = interval(ratios[0])
        print(f"{name} with {what} / without: {m:.4f} [{low:.4f}, {high:.4f}] "
              f"({len(starts)} starts, {len(found)} pairs)")
    longest = [interval([1e3 * side[i]["longest"] for side in found]) for i in (0, 1)]
    (a, b, c), (d, e, f) = longest
    print(f"longest gap, ms, with: {a:.2f} [{b:.2f}, {c:.2f}], without: {d:.2f} [{e:.2f}, {f:.2f}]")
    m, low, high = interval([1e3 * (a["longest"] - b["longest"]) for a, b in found])
    print(f"longest gap with - without: {m:.2f} ms [{low:.2f}, {high:.2f}]")
    if stops:
        print(f"stops: median {statistics.median(stops) * 1e3:.1f} ms, "
              f"longest {max(stops) * 1e3:.1f} ms")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
