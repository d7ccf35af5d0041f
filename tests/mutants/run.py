"""Do the tests notice changed code? python3 tests/mutants/run.py [--sample N] [scheduler kv http]

Changes one operator, limit or statement of the scheduler, the page cache or HTTP framing at a time
and runs the tests that stand for it: the rooms' unit tests with the simulation (300 seeds, then
5,000), or with the strict HTTP cases. These rooms need nothing of the rest of Pacer, so rustc alone builds them.

All mutants of a room are in one build: a function's body becomes a `match` on the number in MUTANT,
with an arm for each of its mutants and the body as written for any other number (mutant schemata,
Untch, Offutt, Harrold 1993). A mutant that does not compile is taken out and none; one that runs
into the time limit, or out of 4 GiB, is caught. Prints the survivors and fails below 90 % caught.
`audit`, planted mistakes and tests are not changed. HTTP needs its libraries: `cargo build` first.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target/mutants"
FILES = {
    "scheduler": ["admit", "commit", "core", "limits", "plan", "sequence", "step"],
    "kv": ["cache", "children", "tree"],
    "http": ["chunked", "connection", "framing", "head", "scan", "target"],
}
SWAPS = [(" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "),
         (" != ", " == "), (" && ", " || "), (" || ", " && "), (" + ", " - "), (" - ", " + "),
         (" += ", " -= "), (" -= ", " += "), (".min(", ".max("), (".max(", ".min("),
         ("saturating_sub(", "saturating_add("), ("true", "false"), ("false", "true"),
         ("if !", "if "), (".any(", ".all("), (".all(", ".any("), ("break;", ""), ("return;", "")]
STATEMENT = re.compile(r"^\s+(self\.[\w.\[\]]+ [+-]?= |self\.[\w.]+\(|step\.[\w.]+\().*;$")
PLANTED = re.compile(r"^\s+if (?!.*![\w.]*planted).*(planted|asleep)")
SKIPPED = re.compile(r"^\s*(//|#|use |pub use )|planted|Bug::|asleep|audit|Error::|Refusal::|debug_assert")


def mutants(area):
    """(file, line number, new line) of every change in an area."""
    for name in FILES[area]:
        path = pathlib.Path("src") / area / f"{name}.rs"
        lines = (ROOT / path).read_text().splitlines()
        end = next((i for i, l in enumerate(lines) if l == "#[cfg(test)]"), len(lines))
        inside, planted = False, ""
        for i, line in enumerate(lines[:end]):
            # The recount and what only messages show.
            inside = inside or "fn audit" in line
            if inside:
                inside = line not in ("    }", "}")
                continue
            # Planted mistakes: the line, or the block that it begins.
            if planted and line != planted:
                continue
            planted = ""
            if PLANTED.search(line):
                planted = " " * (len(line) - len(line.lstrip())) + "}"
            if SKIPPED.search(line):
                continue
            for old, new in SWAPS:
                for at in (m.start() for m in re.finditer(re.escape(old), line)):
                    yield path, i, line[:at] + new + line[at + len(old):]
            if STATEMENT.match(line):
                yield path, i, ""


def run(command, limit, **env):
    """True if it succeeds, False if it fails, None if it takes too long."""
    try:
        return subprocess.run(command, cwd=WORK, timeout=limit, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, env=os.environ | ENV | env).returncode == 0
    except subprocess.TimeoutExpired:
        return None


MORE = {"SIM_SEEDS": "5000", "PACER_MUTATIONS": "20000"}
ENV = {"SIM_SEEDS": "300", "PACER_MUTATIONS": "2000", "CARGO_MANIFEST_DIR": str(ROOT)}
RUSTC = ["rustc", "--edition", "2024", "-A", "warnings", "-C", "opt-level=1",
         "-C", "debug-assertions=on", "-C", "codegen-units=16"]


def libraries():
    """Flags for the libraries that HTTP needs. Builds of several sets of features lie side by side: those
    are taken that fit each other."""
    deps = ROOT / "target/debug/deps"
    newest = lambda name: sorted(deps.glob(f"lib{name}-*.rlib"), key=lambda p: -p.stat().st_mtime)
    names = ("httparse", "serde", "serde_json")
    (WORK / "fits.rs").write_text(
        "pub fn fits<'a>(d: &'a mut serde_json::Deserializer<serde_json::de::SliceRead<'a>>)\n"
        "-> impl serde::Deserializer<'a> { d }\npub use httparse::Status;\n")
    for found in itertools.product(*map(newest, names)):
        flags = ["-L", f"dependency={deps}"]
        flags += sum((["--extern", f"{n}={f}"] for n, f in zip(names, found)), [])
        if run([*RUSTC, *flags, "--crate-type", "rlib", "-o", "fits.rlib", "fits.rs"], 60):
            return flags
    sys.exit(f"no libraries of {', '.join(names)} in {deps}: run cargo test --no-run")


def commands(area):
    """How an area is built, and its tests."""
    if area == "http":
        more = libraries()
        lib = [*RUSTC, *more, "--crate-name", "pacer", "src/lib.rs"]
        return [[*lib, "--test", "-o", "unit"], [*lib, "--crate-type", "rlib"],
                [*RUSTC, *more, "--extern", "pacer=libpacer.rlib", "--test", "-o", "cases",
                 "tests/http_strict/main.rs"]], [["./unit"], ["./cases"]]
    return ([[*RUSTC, "--test", "-o", "sim", "tests/scheduler_sim/main.rs"]],
            [["./sim", "--skip", "every_planted_mistake"]])


FN = re.compile(r"^(\s*)(pub(\([\w:]+\))? )?(const )?fn \w+")


def bodies(lines):
    """(first, last) of the lines of each function's body, as rustfmt sets it: the brace that opens it ends a
    line, the one that closes it stands below `fn`."""
    for i, line in enumerate(lines):
        if not (found := FN.match(line)) or found[4]:
            continue
        opens = next(j for j in range(i, len(lines)) if lines[j].endswith(("{", ";", "}")))
        if not lines[opens].endswith("{") or "-> impl" in " ".join(lines[i:opens + 1]):
            continue
        yield opens + 1, next(j for j in range(opens, len(lines)) if lines[j] == found[1] + "}")


def woven(lines, changes):
    """The file with every change of it, {number: (line, text)}, in an arm of its own; and the number that
    each line of the result belongs to."""
    out, owner = [], []

    def put(text, number=0):
        out.append(text)
        owner.append(number)

    ranges = {first: last for first, last in bodies(lines)}
    at = 0
    while at < len(lines):
        last = ranges.get(at)
        mine = {n: c for n, c in changes.items() if last and at <= c[0] < last}
        if not mine:
            put(lines[at])
            at += 1
            continue
        put("static MUTANT: std::sync::LazyLock<u32> = std::sync::LazyLock::new(||"
            " std::env::var(\"MUTANT\").map_or(0, |m| m.parse().unwrap()));")
        put("match *MUTANT {")
        for number, (line, text) in [*mine.items(), (0, (-1, ""))]:
            put(f"{number} => {{" if number else "_ => {", number)
            for i in range(at, last):
                put(text if i == line else lines[i], number)
            put("}", number)
        put("}")
        at = last
    return "\n".join(out) + "\n", owner


def build(area, builds, every):
    """Builds the area with all its mutants; those that do not compile are taken out. The numbers left."""
    left = dict(enumerate(every, 1))
    while True:
        owners = {}
        for path in {path for path, _, _ in every}:
            changes = {n: (line, text) for n, (p, line, text) in left.items() if p == path}
            text, owners[str(path)] = woven((ROOT / path).read_text().splitlines(), changes)
            (WORK / path).write_text(text)
        bad = set()
        for command in builds:
            done = subprocess.run([*command, "--error-format=json"], cwd=WORK, env=os.environ | ENV,
                                  capture_output=True, text=True)
            for message in map(json.loads, filter(None, done.stderr.splitlines())):
                for span in message["spans"] if message["level"] == "error" else []:
                    name = os.path.relpath(WORK / span["file_name"], WORK)
                    name = os.path.normpath(name)
                    bad.add(owners.get(name, [0] * span["line_start"])[span["line_start"] - 1])
            if done.returncode:
                assert bad - {0}, f"{area}: does not build\n{done.stderr[:4000]}"
                break
        if not bad - {0}:
            return left
        left = {n: m for n, m in left.items() if n not in bad}


def prepare():
    shutil.rmtree(WORK, ignore_errors=True)
    for folder in ("src/kv", "src/scheduler", "src/http", "tests/scheduler_sim", "tests/http_strict"):
        shutil.copytree(ROOT / folder, WORK / folder)
    for file in ("src/error.rs", "src/types.rs"):
        shutil.copy(ROOT / file, WORK / file)
    (WORK / "src/lib.rs").write_text("pub mod http;\npub mod types;\n")
    # The wire tests want a whole server.
    main = WORK / "tests/http_strict/main.rs"
    kept = re.sub(r'#\[path = "../serve/harness.rs"\]\n#\[allow\(dead_code\)\]\nmod harness;\n|mod wire;\n',
                  "", main.read_text())
    main.write_text(kept)


def survives(tests, limit, number):
    """Whether the tests pass with this mutant; the simulation is asked twice, with few seeds and with many."""
    def passes(limit, **env):
        return all(run(["prlimit", "--as=4294967296", *test], limit, MUTANT=str(number), **env)
                   for test in tests)
    return passes(limit) and (not number or passes(20 * limit, **MORE))


def judged(area, every):
    """Counts and survivors of an area."""
    builds, tests = commands(area)
    left = build(area, builds, every)
    begun = time.monotonic()
    assert survives(tests, 300, 0), f"{area}: the tests fail as they are"
    limit = 10 + 8 * (time.monotonic() - begun)
    survivors = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, alive in zip(left, pool.map(lambda n: survives(tests, limit, n), left)):
            if alive:
                path, line, text = left[number]
                was = (ROOT / path).read_text().splitlines()[line]
                survivors.append(f"{path}:{line + 1}: {was.strip()}  ->  {text.strip() or '(gone)'}")
                print(survivors[-1], flush=True)
    return len(left), len(every) - len(left), survivors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("areas", nargs="*", default=list(FILES), help=" ".join(FILES))
    parser.add_argument("--sample", type=int, default=0, help="so many of each area (default: all)")
    options = parser.parse_args()
    failed = False
    for area in options.areas:
        prepare()
        every = list(mutants(area))
        if options.sample:
            every = random.Random(1).sample(every, min(options.sample, len(every)))
        tried, uncompiled, survivors = judged(area, every)
        share = 100 * (tried - len(survivors)) / max(tried, 1)
        print(f"{area}: {tried - len(survivors)} of {tried} caught ({share:.0f} %), {uncompiled} did not "
              f"compile", flush=True)
        failed |= share < 90
    sys.exit(failed)


if __name__ == "__main__":
    main()
