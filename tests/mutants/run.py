"""Do the tests notice changed code? python3 tests/mutants/run.py [--sample N] [scheduler kv http]

Changes one operator, limit or statement of the scheduler, the page cache or HTTP framing at a time
and runs the tests that stand for it: the rooms' unit tests with the simulation (300 seeds), or with
the strict HTTP cases. These rooms need nothing of the rest of Pacer, so each mutant is built by rustc
alone, in seconds. A mutant that does not compile is none; one that runs into the time limit is caught.
Prints the survivors and fails below 90 % caught. `audit`, planted mistakes and tests are not changed.
Wants `cargo test --no-run` to have been run, for the libraries that HTTP needs.
"""

import argparse
import itertools
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

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
PLANTED = re.compile(r"^\s+if (?!.*![\w.]*planted).*planted.*\{$")
SKIPPED = re.compile(r"^\s*(//|#|use |pub use )|planted|Bug::|audit|Error::|Refusal::|debug_assert")


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


def run(command, limit):
    """True if it succeeds, None if it takes too long."""
    try:
        done = subprocess.run(command, cwd=WORK, timeout=limit, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, env=os.environ | ENV)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return None


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


def caught(area):
    """Whether the tests notice what is now in WORK; None if it does not compile."""
    if area == "http":
        more = libraries()
        lib = [*RUSTC, *more, "--crate-name", "pacer", "src/lib.rs"]
        builds = [[*lib, "--test", "-o", "unit"], [*lib, "--crate-type", "rlib"],
                  [*RUSTC, *more, "--extern", "pacer=libpacer.rlib", "--test", "-o", "cases",
                   "tests/http_strict/main.rs"]]
        tests = [["./unit"], ["./cases"]]
    else:
        builds = [[*RUSTC, "--test", "-o", "sim", "tests/scheduler_sim/main.rs"]]
        tests = [["./sim", "--skip", "every_planted_mistake"]]
    if not all(run(build, 300) for build in builds):
        return None
    return not all(run(test, 60) for test in tests)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("areas", nargs="*", default=list(FILES), help=" ".join(FILES))
    parser.add_argument("--sample", type=int, default=0, help="so many of each area (default: all)")
    options = parser.parse_args()
    prepare()
    failed = False
    for area in options.areas:
        assert caught(area) is False, f"{area}: the tests fail as they are"
        every = list(mutants(area))
        if options.sample:
            every = random.Random(1).sample(every, min(options.sample, len(every)))
        counts, survivors = {True: 0, False: 0, None: 0}, []
        for path, line, text in every:
            original = (WORK / path).read_text()
            lines = original.splitlines()
            was, lines[line] = lines[line], text
            (WORK / path).write_text("\n".join(lines) + "\n")
            verdict = caught(area)
            (WORK / path).write_text(original)
            counts[verdict] += 1
            if verdict is False:
                survivors.append(f"{path}:{line + 1}: {was.strip()}  ->  {text.strip() or '(gone)'}")
                print(survivors[-1], flush=True)
        tried = counts[True] + counts[False]
        share = 100 * counts[True] / max(tried, 1)
        print(f"{area}: {counts[True]} of {tried} caught ({share:.0f} %), {counts[None]} did not "
              f"compile", flush=True)
        failed |= share < 90
    sys.exit(failed)


if __name__ == "__main__":
    main()
