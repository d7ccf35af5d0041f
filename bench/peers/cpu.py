"""Pacer and llama.cpp on the CPU: same file, same threads, same run, in turn.

cpu.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--pacer target/release/pacer]

Builds llama.cpp's tools from PyPI's source package (or takes them from --llama-dir), makes the
other weight types from the model with llama-quantize, and runs llama-bench, llama-batched-bench,
llama-completion and llama-server in turn with `pacer bench-one-batch`, `generate` and `serve`. Each
figure is the median of pairs; the ratio's interval is that of the pairs' own ratios. Writes OUT.json
and OUT.md after each stage; a run of a few stages or types replaces their rows and keeps the others.
A case that others on the machine disturbed too much is not reported, and the exit code is 4 then.

All of it takes 30 to 70 minutes on two cores; `--only decode --types q4_1` less than one.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import llama
import quiet
import serving as servers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STAGES = ["decode", "prefill", "batch", "start", "memory", "serving"]
TYPES = ["q4_1", "q8_0", "f16", "bf16", "f32"]
PROMPTS = [128, 512, 1024]
BATCHES = [4, 8, 16, 32]
CONCURRENCY = [1, 8, 16]
PROMPT, GENERATED = 128, 64
CONTEXT = 2048
TEXT = "The three largest cities of France are"

# Least ratio to llama.cpp that counts as reached.
BARS = {
    "decode": {"q4_1": 1.6, "q8_0": 1.4, "f16": 1.1, "bf16": 1.25, "f32": 1.0},
    "prefill": {"q4_1": 2.0, "q8_0": 1.3, "f16": 1.1, "bf16": 1.5, "f32": 1.3},
    "batch": {"q4_1": 2.5},
    "start": {"q4_1": 1.0},
    "memory": {"q4_1": 1.0},
    "serving": {"q4_1": 1.8},
}
UNITS = {"start": "s", "memory": "MiB"}


def say(line):
    print(line, file=sys.stderr, flush=True)


def output(command):
    """Standard output of a command that must succeed."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def one_batch(args, file, batches, inputs, tokens, repeat, warmup):
    """Rows of `pacer bench-one-batch`, one for each shape."""
    command = [args.pacer, "bench-one-batch", "--model-path", file, "--device", "cpu", "--threads",
               args.threads, "--activation-bits", args.activation_bits, "--batch-size", *batches,
               "--input-len", *inputs, "--output-len", tokens, "--repeat", repeat, "--warmup",
               warmup, "--result-filename", "", "--json"]
    return [json.loads(line) for line in output(command).splitlines()]


def decode(args, tools, file):
    """Batch 1 from an empty cache, as `llama-bench -p 0 -n 64` does."""
    def theirs():
        text = output(llama.bench_command(tools, file, args.threads, [], GENERATED, 3))
        return {"1": llama.bench_rates(text)[(0, GENERATED)]}

    def ours():
        row = one_batch(args, file, [1], [1], GENERATED + 1, 3, 1)[0]
        return {"1": row["decode_back_to_back"]["throughput"]}

    return quiet.Sides(ours, theirs)


def prefill(args, tools, file):
    """One prompt, logits of its last token."""
    def theirs():
        rates = llama.bench_rates(
            output(llama.bench_command(tools, file, args.threads, args.prompts, 0, 1)))
        return {str(n): rates[(n, 0)] for n in args.prompts}

    def ours():
        rows = one_batch(args, file, [1], args.prompts, 1, 1, 1)
        return {str(row["input_len"]): row["prefill_throughput"] for row in rows}

    return quiet.Sides(ours, theirs)


def batch(args, tools, file):
    """Several sequences decoding at once, after prompts of 128 tokens."""
    def theirs():
        command = llama.batched_command(tools, file, args.threads, args.batches, PROMPT, GENERATED)
        rates = llama.batched_rates(output(command))
        return {str(n): rates[n] for n in args.batches}

    def ours():
        rows = one_batch(args, file, args.batches, [PROMPT], GENERATED + 1, 1, 0)
        return {str(row["batch_size"]): row["decode_back_to_back"]["throughput"] for row in rows}

    return quiet.Sides(ours, theirs)


def generate_command(args, file, tokens):
    return [args.pacer, "generate", "--model-path", file, "--device", "cpu", "--threads",
            args.threads, "--activation-bits", args.activation_bits, "--context-length", CONTEXT,
            "--max-total-tokens", CONTEXT, "--prompt", TEXT, "--max-new-tokens", tokens,
            "--temperature", 0]


def first_byte(command):
    """Seconds from starting a process to its first byte of standard output."""
    command = [str(word) for word in command]
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors,
                                 stdin=subprocess.DEVNULL)
        byte = child.stdout.read(1)
        seconds = time.perf_counter() - begin
        child.stdout.read()
        if child.wait() != 0 or not byte:
            errors.seek(0)
            sys.exit(f"{' '.join(command)}: no answer\n{errors.read()[-2000:].decode()}")
    return seconds


def start(args, tools, file):
    """From the shell to the first token, with the file in the page cache."""
    their = llama.complete_command(tools, file, args.threads, TEXT, 4, CONTEXT)
    our = generate_command(args, file, 4)
    first_byte(their), first_byte(our)
    return quiet.Sides(lambda: {"first token": first_byte(our)},
                       lambda: {"first token": first_byte(their)})


def peak(command):
    """Peak resident memory of a process, MiB."""
    command = [str(word) for word in command]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {child.returncode}")
    return usage.ru_maxrss / 1024


def memory(args, tools, file):
    """Peak resident memory with room for 2048 tokens, after 64 of them."""
    their = llama.complete_command(tools, file, args.threads, TEXT, GENERATED, CONTEXT)
    our = generate_command(args, file, GENERATED)
    return quiet.Sides(lambda: {"2048 tokens": peak(our)}, lambda: {"2048 tokens": peak(their)})


def serving(args, tools, file):
    """Requests of 128 tokens in and 64 out, several at once."""
    both = servers.start(args.pacer, tools / "llama-server", file, args.threads,
                         max(args.concurrency), args.serve.split())

    def close():
        for server in both:
            server.stop()

    sides = [servers.client(args.pacer, server, args.concurrency) for server in both]
    return quiet.Sides(*sides, tuple(server.process.pid for server in both), close)


def unit(stage, case):
    """What the case's figure is counted in."""
    times = stage == "serving" and not case.isdigit()
    return "ms" if times else UNITS.get(stage, "tokens/s")


def bar(stage, kind, case):
    """Least ratio of a case; 0: none is asked, it is told as it is."""
    if stage == "serving" and not case.isdigit():
        return 1.0 if case.endswith("ITL p99") else 0
    return BARS[stage].get(kind)


def stage_rows(args, tools, stage, kind, file):
    """The rows of one stage on one file, and why cases have none.

    # Errors: `quiet.Noisy`."""
    quiet.settle(args.settle)
    sides = globals()[stage](args, tools, file)
    try:
        cases, loop, wide = quiet.pairs(
            args.pairs, args.most, sides, lambda case: unit(stage, case) == "tokens/s",
            lambda case: bar(stage, kind, case), say)
    finally:
        sides.close()
    rows = []
    for case, found in cases.items():
        least = bar(stage, kind, case) or None
        reached = None if least is None else found["ratio"]["median"] >= least
        rows.append({"stage": stage, "type": kind, "case": case, "unit": unit(stage, case),
                     **found, "bar": least, "reached": reached, "fixed_loop_ms": loop,
                     "threads": args.threads, "date": now(), "pacer": args.version})
        say(line(rows[-1]))
    return rows, [f"{stage} {kind} {case}: {why}" for case, why in wide.items()]


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def line(row):
    ours, theirs, ratio = row["ours"], row["theirs"], row["ratio"]
    digits = 3 if row["unit"] == "s" else 1
    reached = {None: "", True: "yes", False: "no"}[row["reached"]]
    return (f"| {row['stage']} | {row['type']} | {row['case']} | {ours['median']:.{digits}f} | "
            f"{theirs['median']:.{digits}f} {row['unit']} | {quiet.show(ratio)} | "
            f"{len(ratio['samples'])} | {row['bar'] or ''} | {reached} |")


def page(result):
    """The table, for people."""
    head = ["# Pacer and llama.cpp on the CPU", "", result["command"], "",
            f"{result['machine']}, {result['peer']}.",
            "Medians of pairs run in turn; ratio above 1: Pacer is better, with the interval of "
            "the pairs' ratios.", "",
            "| stage | type | case | Pacer | llama.cpp | ratio | pairs | bar | reached |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    body = [line(row) for row in result["rows"]]
    dates = sorted({f"{row['pacer']}, {row['date'][:10]}" for row in result["rows"]})
    refused = [f"- not reported: {why}" for why in result["refused"]]
    return "\n".join(head + body + ["", "Measured: " + "; ".join(dates) + ".", *refused]) + "\n"


def order(row):
    """Serving's figures stand together, then by how many are in flight."""
    number, _, figure = row["case"].partition(" ")
    return (STAGES.index(row["stage"]), TYPES.index(row["type"]),
            list(servers.FIGURES).index(figure) if row["stage"] == "serving" else 0,
            int(number) if number.isdigit() else 0)


def save(args, rows, refused, peer):
    """Writes both files; rows of earlier runs that this one did not replace stay."""
    json_file = pathlib.Path(f"{args.out}.json")
    kept = json.loads(json_file.read_text())["rows"] if json_file.exists() else []
    replaced = {(row["stage"], row["type"], row["case"]) for row in rows}
    kept = [row for row in kept if (row["stage"], row["type"], row["case"]) not in replaced]
    result = {"command": f"`{' '.join(['bench/peers/cpu.py', *sys.argv[1:]])}`",
              "machine": f"{quiet.processor()}, {os.cpu_count()} cores",
              "peer": peer, "rows": sorted(kept + rows, key=order), "refused": refused}
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(result, indent=1) + "\n")
    pathlib.Path(f"{args.out}.md").write_text(page(result))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=llama.path, help="a GGUF file")
    parser.add_argument("--pacer", type=llama.path, default=ROOT / "target/release/pacer")
    parser.add_argument("--llama-dir", type=llama.path,
                        help="folder of llama.cpp's tools (default: build them)")
    parser.add_argument("--work", type=llama.path, default=ROOT / "target/peers",
                        help="where tools and files are made (default target/peers)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--activation-bits", type=int, choices=[8, 16], default=16,
                        help="Pacer's (default 16, as Pacer's own)")
    parser.add_argument("--pairs", type=int, default=5, help="least pairs of a stage")
    parser.add_argument("--most", type=int, default=15, help="most pairs of a stage")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE",
                        help=f"of {', '.join(STAGES)}")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES, metavar="TYPE",
                        help=f"of {', '.join(TYPES)}; the last four stages use the first only")
    parser.add_argument("--prompts", nargs="+", type=int, default=PROMPTS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--concurrency", nargs="+", type=int, default=CONCURRENCY)
    parser.add_argument("--serve", default="", metavar="FLAGS",
                        help="more flags of pacer serve, in one string")
    parser.add_argument("--settle", type=int, default=60,
                        help="most seconds to wait for the load average to fall")
    parser.add_argument("--out", default=str(ROOT / "bench/results/peers-cpu"))
    return parser.parse_args()


def main():
    args = arguments()
    tools = args.llama_dir or llama.build(args.work)
    args.work.mkdir(parents=True, exist_ok=True)
    files = llama.typed(tools, args.model, args.types, args.work)
    args.version = output([args.pacer, "--version"]).strip()
    rows, refused = [], []
    for stage in args.only:
        kinds = args.types if stage in ("decode", "prefill") else args.types[:1]
        for kind in kinds:
            try:
                found, unknown = stage_rows(args, tools, stage, kind, files[kind])
                rows += found
                refused += unknown
                for why in unknown:
                    say(f"not reported: {why}")
                save(args, rows, refused, llama.version(tools))
            except quiet.Noisy as why:
                refused.append(f"{stage} {kind}: {why}")
                say(f"{stage} {kind} is not reported: {why}")
    save(args, rows, refused, llama.version(tools))
    sys.exit(4 if refused else 0)


if __name__ == "__main__":
    main()
