"""`pacer compare` on real runs: python3 bench/compare.py [server|engine]

A against A must not alarm, and a planted slowdown of 2 % must be found:

- server: bench-serving against mock servers that send a token every 20 ms and every 20.4 ms;
- engine: bench-one-batch of the default configuration on the CPU with prompts of 256 tokens, and of
  261 (2 % more to compute).

Appends to bench/results/compare.md; exits 1 where the verdict is wrong.
"""

import argparse
import datetime
import pathlib
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def compare(pacer, rounds, metric, a, b):
    command = [str(pacer), "compare", "--rounds", str(rounds), "--metric", metric, "--fail-over",
               "0.5", "--a", a, "--b", b]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.returncode, [l.strip() for l in done.stdout.splitlines() if metric in l]


def server(pacer, mock, rounds):
    ports = [port(), port()]
    mocks = [subprocess.Popen([mock, str(p), "20", gap]) for p, gap in zip(ports, ("20", "20.4"))]
    side = ("bench-serving --base-url http://127.0.0.1:{} --num-prompts 8 --max-concurrency 8 "
            "--random-input-len 8 --random-output-len 17 --random-range-ratio 1 --output-file= "
            "--disable-tqdm")
    try:
        time.sleep(0.5)
        a, b = (side.format(p) for p in ports)
        return [("server, A against A", 0, *compare(pacer, rounds, "median_tpot_ms", a, a)),
                ("server, 2 % slower", 3, *compare(pacer, rounds, "median_tpot_ms", a, b))]
    finally:
        for m in mocks:
            m.terminate()
            m.wait()


def engine(pacer, rounds):
    side = ("bench-one-batch --input-len {} --output-len 2 --repeat 3 --warmup 1 --result-filename= "
            "--threads 1")
    a, b = side.format(256), side.format(261)
    return [("engine, A against A", 0, *compare(pacer, rounds, "prefill_latency", a, a)),
            ("engine, 2 % more to compute", 3, *compare(pacer, rounds, "prefill_latency", a, b))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["server", "engine"])
    parser.add_argument("--bin", default=str(ROOT / "target/release"), help="folder of the binaries")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    folder = pathlib.Path(options.bin)
    pacer = folder / "pacer"
    if options.what == "server":
        found = server(pacer, folder / "examples/mock_server", options.rounds)
    else:
        found = engine(pacer, options.rounds)
    cpu = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    lines = [f"## {options.what}, {datetime.date.today()}", "",
             f"{cpu[0]}, {len(cpu)} cores; `python3 bench/compare.py {options.what} --rounds "
             f"{options.rounds}`", "", "| runs | verdict (figure, A, B) | exit code | wanted |",
             "| --- | --- | ---: | ---: |"]
    lines += [f"| {name} | {' '.join(verdict)} | {code} | {wanted} |"
              for name, wanted, code, verdict in found]
    text = "\n".join(lines) + "\n"
    print(text)
    path = ROOT / "bench/results/compare.md"
    head = path.read_text() if path.exists() else "# `pacer compare` on real runs\n"
    path.write_text(head + "\n" + text)
    if any(code != wanted for _, wanted, code, _ in found):
        raise SystemExit("a wrong verdict")


if __name__ == "__main__":
    main()
