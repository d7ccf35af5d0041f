#!/usr/bin/env python3
"""A long capture under load stays within its cap, with memory flat.

Starts a server whose traces may have --cap MiB, opens a capture without an end, loads the server
for --minutes, and reads its resident memory once a second. At the end the capture is stopped and
held to: memory no more than 64 MiB above what it was when the capture began, the trace no larger
than the cap, every record in it, left out or lost, and counted, and nothing else left in the
folder. Prints what it found; exits 1 if a bar is missed.

  python3 bench/profile_soak.py target/release/pacer [--minutes 10] [--cap 64] [--clients 4]
      [-- --model-path …]

Standard library only.
"""
import argparse
import gzip
import os
import sys
import threading
import time

from profile_overhead import Server

BAR_MIB = 64


def resident(pid):
    """MiB of resident memory that no file backs: weights may be mapped."""
    with open(f"/proc/{pid}/status") as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024


def nameless(pid):
    """MiB of files that are open and have no name: where records wait for their trace."""
    size = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            if os.readlink(path).endswith("(deleted)"):
                size += os.stat(path).st_size
        except OSError:
            pass
    return size / 2**20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pacer")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cap", type=int, default=64)
    parser.add_argument("--clients", type=int, default=4)
    words, own = sys.argv[1:], []
    if "--" in words:
        words, own = words[:words.index("--")], words[words.index("--") + 1:]
    args = parser.parse_args(words)
    flags = own or ["--load-format", "dummy"]
    server = Server(args.pacer, [*flags, "--profile-max-size", str(args.cap)])
    try:
        sys.exit(0 if soak(args, server) else 1)
    finally:
        server.close()


def soak(args, server):
    over = threading.Event()

    def client(i):
        while not over.is_set():
            server.stream([(7 * i + j) % 250 + 1 for j in range(32)], 64, [])

    threads = [threading.Thread(target=client, args=(i,)) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    pid, readings, spool = server.child.pid, [], 0
    before = resident(pid)
    server.post("/start_profile", {"profile_id": "soak"})
    until = time.time() + 60 * args.minutes
    while time.time() < until:
        time.sleep(1)
        readings.append(resident(pid))
        spool = max(spool, nameless(pid))
    began = time.time()
    answer = server.post("/stop_profile", {})
    stop_s = time.time() - began
    readings.append(resident(pid))
    over.set()
    for thread in threads:
        thread.join()
    detail = answer["details"][0]
    size = os.path.getsize(detail["trace"]) / 2**20
    with gzip.open(detail["trace"]) as f:
        end = b""
        while piece := f.read(1 << 20):
            end = (end + piece)[-2000:]
    names = sorted(os.listdir(server.folder.name))
    growth = max(readings) - before
    print(f"{args.minutes:g} minutes, {args.clients} clients: memory {before:.1f} MiB before, at "
          f"most {growth:.1f} MiB more ({len(readings)} readings)")
    print(f"records waited in up to {spool:.1f} MiB of a nameless file; trace {size:.1f} MiB of "
          f"{args.cap}; stop answered after {stop_s:.1f} s")
    print(f"lost {detail['lost_records']}, left out {detail['left_out_records']} records and "
          f"{detail['left_out_bytes'] / 2**20:.1f} MiB of text; files {names}")
    checks = {
        "memory is flat": growth <= BAR_MIB,
        "the spool keeps to the cap": spool <= args.cap,
        "the trace keeps to the cap": size <= args.cap,
        "the trace says what it left out": b'"left_out_records"' in end,
        "nothing else is left": names == ["soak-TP-0.summary.json", "soak-TP-0.trace.json.gz"],
    }
    for name, holds in checks.items():
        print(f"{'ok' if holds else 'MISSED'}: {name}")
    return all(checks.values())


if __name__ == "__main__":
    main()
