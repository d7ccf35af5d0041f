"""Many idle connections (10,000 unless said), and what they cost:
idle_connections.py PACER [COUNT] [--out FILE]

Measured: time to open them all, refused ones, resident memory each, how long a new request takes
beside them (p50, p99 of 200), CPU time while nothing happens.
"""

import argparse
import datetime
import json
import os
import pathlib
import resource
import socket
import subprocess
import time

PORT = 30986
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def status(pid, name):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1])


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request():
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as client:
        client.sendall(GET)
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:60]
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pacer")
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("--out", default="bench/results/idle_connections.jsonl")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, options.count + 200), hard))
    command = [options.pacer, "serve", "--device", "null", "--port", str(PORT)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                request()
                break
            except (OSError, AssertionError):
                time.sleep(0.1)
        before = status(server.pid, "VmRSS")
        began, held, refused = time.perf_counter(), [], 0
        for _ in range(options.count):
            try:
                held.append(socket.create_connection(("127.0.0.1", PORT), timeout=30))
            except OSError:
                refused += 1
        opened = time.perf_counter() - began
        request()
        memory = (status(server.pid, "VmRSS") - before) * 1024 / max(1, len(held))
        times = sorted(request() for _ in range(200))
        cpu = cpu_seconds(server.pid)
        time.sleep(10)
        idle = (cpu_seconds(server.pid) - cpu) / 10
        row = {
            "connections": len(held),
            "refused": refused,
            "open_s": round(opened, 3),
            "rss_bytes_each": round(memory),
            "request_p50_ms": round(times[100] * 1e3, 2),
            "request_p99_ms": round(times[197] * 1e3, 2),
            "idle_cpu_share": round(idle, 4),
            "command": " ".join(["pacer", *command[1:]]),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        }
        print(json.dumps(row))
        pathlib.Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        with open(options.out, "a") as out:
            out.write(json.dumps(row) + "\n")
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
