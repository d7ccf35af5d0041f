#!/usr/bin/env python3
"""How much memory merging takes: makes FILES traces of MIB MiB of JSON each (compressed they are
about a tenth) and reports the time and the most memory that `pacer merge-traces` held.

  python3 bench/merge_memory.py target/release/pacer [--files 8] [--mib 200] [--limit-mib 300]

Exits with 1 if it held more than the limit. Standard library only.
"""
import argparse
import gzip
import os
import resource
import subprocess
import sys
import tempfile
import time


def make(path, mib, rank):
    size, events, wanted = 0, 0, mib << 20
    with gzip.open(path, "wt", compresslevel=1) as out:
        out.write('{"schemaVersion": 1, "pacer": {"clock": {"monotonic_ns": %d, "realtime_ns": %d, '
                  '"boot": "b"}}, "traceEvents": [' % (1000 + rank, 1_000_000 + rank))
        while size < wanted:
            piece = []
            for _ in range(500):
                t = events * 3 + 0.125
                piece.append('{"ph": "X", "pid": 4242, "tid": 7, "ts": %.3f, "dur": 2.500, "cat": '
                             '"cpu_op", "name": "linear gate_up_proj", "args": {"step": %d, '
                             '"module": "model.layers.%d.mlp.gate_up_proj", "flops": %d}}'
                             % (t, events // 300, events % 32, events * 17))
                piece.append('{"ph": "s", "pid": 4242, "tid": 7, "ts": %.3f, "id": %d, "cat": '
                             '"flow", "name": "launch"}' % (t, events))
                piece.append('{"ph": "f", "bp": "e", "pid": 4242, "tid": 7, "ts": %.3f, "id": %d, '
                             '"cat": "flow", "name": "launch"}' % (t + 1, events))
                events += 1
            text = ("," if size else "") + ",\n".join(piece)
            size += len(text)
            out.write(text)
        out.write("]}")
    return size


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pacer")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--mib", type=int, default=200)
    parser.add_argument("--limit-mib", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pacer-merge-") as folder:
        total = sum(make(os.path.join(folder, f"big-TP-{r}.trace.json.gz"), args.mib, r)
                    for r in range(args.files))
        began = time.perf_counter()
        done = subprocess.run([args.pacer, "merge-traces", "--output-dir", folder,
                               "--profile-id", "big", "--expect", str(args.files)])
        took = time.perf_counter() - began
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{args.files} files, {total / 2**20:.0f} MiB of JSON: {took:.1f} s, {held:.1f} MiB held")
    sys.exit(done.returncode or int(held > args.limit_mib))


if __name__ == "__main__":
    main()
