"""Whether the machine was quiet enough to believe a pair of measurements, and statistics of pairs.

Watched of each pair: processor time that others took (all of it less what the two measured
processes used), and time the hypervisor took. A processor core shared with a stranger's machine
halves its speed for seconds, and nothing in the guest tells; so pairs are taken until the interval
of the median ratio is narrow, or all of it lies on one side of the ratio that is asked for. A case
whose interval says neither is not reported. How fast a fixed loop spun before each pair is noted
beside the figures.
"""

import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
import typing

OTHERS = 0.06
STEAL = 0.02
WIDTH = 0.20
TICK = os.sysconf("SC_CLK_TCK")


class Noisy(Exception):
    """Why a stage is not reported."""


def ticks():
    """(busy, stolen) seconds of all cores since boot."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, idle, wait, irq, soft, steal = map(int, fields[:8])
    return (user + nice + system + irq + soft) / TICK, steal / TICK


class Sides(typing.NamedTuple):
    """What a pair runs: two functions that give `{case: number}`; processes of both that live
    longer than a pair; and what to do when all pairs are done."""

    ours: typing.Callable
    theirs: typing.Callable
    servers: tuple = ()
    close: typing.Callable = lambda: None


class Watch:
    """Counts what others took of the processors between its making and `check`."""

    def __init__(self, servers):
        self.servers = servers
        self.begin, self.busy, self.own = time.monotonic(), ticks(), own_seconds(servers)

    def check(self):
        """(share of others, share stolen), of all cores' time."""
        room = (time.monotonic() - self.begin) * os.cpu_count()
        busy, steal = (after - before for after, before in zip(ticks(), self.busy))
        others = busy - (own_seconds(self.servers) - self.own)
        return max(others, 0) / room, steal / room


def own_seconds(servers):
    """Processor time of this script, of its children that have ended, and of `servers`."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system + sum(map(lived, servers))


def lived(process):
    """Processor seconds of a process that still runs (proc(5): utime and stime of its stat)."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def processor():
    """The processor, with the numbers that tell generations apart behind one name."""
    lines = (line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if ":" in line)
    about = {}
    for name, value in lines:
        about.setdefault(name.strip(), value.strip())
    numbers = ", ".join(f"{word} {about[name]}" for word, name in
                        [("family", "cpu family"), ("model", "model")] if name in about)
    name = about.get("model name", platform.machine())
    return f"{name} ({numbers})" if numbers else name


def load():
    return float(pathlib.Path("/proc/loadavg").read_text().split()[0])


def settle(seconds):
    """Waits for the load average to fall below the number of cores; what it is then."""
    until = time.monotonic() + seconds
    while load() > os.cpu_count() and time.monotonic() < until:
        time.sleep(1)
    return load()


def spin():
    """Seconds of a fixed loop on all cores at once: the best of five, so that a moment's
    disturbance does not count but a slower clock or a lasting neighbour does."""
    loop = ("import time\nbest = 9\nfor _ in range(5):\n t = time.perf_counter()\n"
            " for i in range(1000000): pass\n best = min(best, time.perf_counter() - t)\nprint(best)")
    command = [sys.executable, "-c", loop]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(os.cpu_count())]
    return max(float(child.communicate()[0]) for child in running)


def interval(samples):
    """Median, and the range that holds it with 95 % (fewer than 6 samples: all of them)."""
    ordered = sorted(samples)
    n = len(ordered)
    skip = next((k for k in range((n - 1) // 2, 0, -1) if coverage(n, k) >= 0.95), 0)
    return {"median": statistics.median(ordered), "low": ordered[skip], "high": ordered[-1 - skip],
            "samples": samples}


def coverage(n, skip):
    """That the median lies between order statistics `skip` and `n - 1 - skip` (binomial)."""
    return 1 - 2 * sum(math.comb(n, k) for k in range(skip + 1)) / 2**n


def pairs(least, most, sides, larger_is_better, bar, say):
    """Runs both sides in turn, one right after the other, the first alternating, until `least`
    pairs are undisturbed and every case's ratio is known well enough, or `most` have been tried.
    `larger_is_better` and `bar` are asked of each case. Returns `{case: comparison}`, the fixed
    loop's range and `{case: why it is not known}`."""
    kept, reasons, spins = [], [], []
    for attempt in range(most):
        spins.append(spin() * 1e3)
        watch = Watch(sides.servers)
        if attempt % 2 == 0:
            their, our = sides.theirs(), sides.ours()
        else:
            our, their = sides.ours(), sides.theirs()
        others, stolen = watch.check()
        if others > OTHERS or stolen > STEAL:
            reasons.append(f"others {others:.0%}, stolen {stolen:.0%}")
            say(f"pair {attempt + 1} not kept: {reasons[-1]}")
            continue
        kept.append((our, their))
        found = compare(kept, larger_is_better)
        so_far = ", ".join(f"{case}: {show(c['ratio'])}" for case, c in found.items())
        say(f"pair {attempt + 1}: {so_far}")
        if len(kept) >= least:
            if all(settled(c["ratio"], bar(case)) for case, c in found.items()):
                break
    if len(kept) < least:
        raise Noisy(f"{len(kept)} of {least} pairs undisturbed ({'; '.join(reasons[-3:])})")
    loop = {"low": min(spins), "high": max(spins)}
    wide = {case: f"the ratio is still {show(c['ratio'])} after {len(kept)} pairs; a fixed loop "
                  f"took {min(spins):.0f} to {max(spins):.0f} ms"
            for case, c in found.items() if not settled(c["ratio"], bar(case))}
    return {case: c for case, c in found.items() if case not in wide}, loop, wide


def settled(ratio, bar):
    """Whether a ratio's interval is narrow, or leaves no doubt about the bar. A bar of 0 asks for
    nothing: the interval is told as it is."""
    narrow = ratio["high"] - ratio["low"] <= WIDTH * ratio["median"]
    return narrow or (bar is not None and not ratio["low"] < bar <= ratio["high"])


def compare(kept, larger_is_better):
    """Both sides' intervals, and that of the pairs' ratios (above 1: ours is better), by case."""
    found = {}
    for case in kept[0][0]:
        ours, theirs = [our[case] for our, _ in kept], [their[case] for _, their in kept]
        larger = larger_is_better(case)
        ratios = [o / t if larger else t / o for o, t in zip(ours, theirs)]
        found[case] = {"ours": interval(ours), "theirs": interval(theirs),
                       "ratio": interval(ratios)}
    return found


def show(found):
    return f"{found['median']:.2f} ({found['low']:.2f}–{found['high']:.2f})"
