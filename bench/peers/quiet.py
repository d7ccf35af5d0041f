"""Whether the machine was quiet enough to believe a pair of measurements, and statistics of pairs.

Four things are watched. Of each pair: processor time that others took (all of it less what the
two measured processes used), and time the hypervisor took. Of a stage: how fast a fixed loop spins
before and after it, and how far the samples of one side spread.
"""

import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

OTHERS = 0.06
STEAL = 0.02
SPREAD = 0.30
SPIN = 0.10
TICK = os.sysconf("SC_CLK_TCK")


class Noisy(Exception):
    """Why a stage is not reported."""


def ticks():
    """(busy, stolen) seconds of all cores since boot."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, idle, wait, irq, soft, steal = map(int, fields[:8])
    return (user + nice + system + irq + soft) / TICK, steal / TICK


class Watch:
    """Counts what others took of the processors between its making and `check`."""

    def __init__(self):
        self.begin, self.busy, self.own = time.monotonic(), ticks(), own_seconds()

    def check(self):
        """(share of others, share stolen), of all cores' time."""
        room = (time.monotonic() - self.begin) * os.cpu_count()
        busy, steal = (after - before for after, before in zip(ticks(), self.busy))
        others = busy - (own_seconds() - self.own)
        return max(others, 0) / room, steal / room


def own_seconds():
    """Processor time of this script and of its children that have ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


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


def pairs(count, ours, theirs, say):
    """Runs both sides `count` times, one right after the other, the first in turn; a pair that
    others disturbed is run again, at most `2 · count + 3` times in all. `ours` and `theirs` give
    `{case: number}`. Returns `{case: (our samples, their samples)}`."""
    before, kept, reasons = spin(), [], []
    for attempt in range(2 * count + 3):
        watch = Watch()
        if attempt % 2 == 0:
            their, our = theirs(), ours()
        else:
            our, their = ours(), theirs()
        others, stolen = watch.check()
        if others > OTHERS or stolen > STEAL:
            reasons.append(f"others {others:.0%}, stolen {stolen:.0%}")
            say(f"pair {attempt + 1} not kept: {reasons[-1]}")
            continue
        kept.append((our, their))
        if len(kept) == count:
            break
    if len(kept) < count:
        raise Noisy(f"{len(kept)} of {count} pairs undisturbed ({'; '.join(reasons[-3:])})")
    after = spin()
    if abs(after - before) > SPIN * before:
        raise Noisy(f"a fixed loop took {before * 1e3:.1f} ms before and {after * 1e3:.1f} ms after")
    return {case: ([o[case] for o, _ in kept], [t[case] for _, t in kept]) for case in kept[0][0]}


def compare(ours, theirs, larger_is_better):
    """Both sides' intervals, and that of the pairs' ratios (above 1: ours is better)."""
    for side, samples in (("ours", ours), ("theirs", theirs)):
        spread = (max(samples) - min(samples)) / statistics.median(samples)
        if spread > SPREAD:
            raise Noisy(f"{side} spread {spread:.0%} over {len(samples)} pairs")
    ratios = [o / t if larger_is_better else t / o for o, t in zip(ours, theirs)]
    return {"ours": interval(ours), "theirs": interval(theirs), "ratio": interval(ratios)}
