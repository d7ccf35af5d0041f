"""R44: five minutes of mixed load: native, completions and chat-less streams, batches, n, log-
probabilities, grammars; 20 % of the requests are left by their client, 5 % are wrong; profiles start
and stop, the cache is flushed. At each pause no page may be held, file descriptors and threads are
those of the beginning; memory stays within 5 % of its value after the first minute, with a slope of
at most 1 KiB per 1,000 requests; latency between tokens at the end is that of the beginning
(p99 of the last tenth at most 1.1 times the first's). Null device, so that the server is what is
worn. `--seconds 300`."""

import asyncio
import random
import tempfile
import time

import lab

GOOD, LEFT, WRONG = "good", "left", "wrong"


def body(i, rng):
    """Path, body, and whether it must fail."""
    tokens, ids = rng.randrange(8, 96), lab.prompt(rng.randrange(200), rng.randrange(8, 200), 2048)
    kind = rng.randrange(20)
    if kind == 0:
        wrong = [("temperature", -1), ("max_new_tokens", "x"), ("top_p", 7), ("n", 100000)]
        return "/generate", lab.generate(ids, tokens, **dict([rng.choice(wrong)])), True
    if kind < 8:
        return "/generate", lab.generate(ids, tokens, stream=True), False
    if kind < 10:
        return "/generate", lab.generate(ids, tokens, n=3), False
    if kind < 12:
        logs = {"return_logprob": True, "top_logprobs_num": 3, "logprob_start_len": 0}
        return "/generate", lab.generate(ids[:40], 12) | logs, False
    if kind < 14:
        several = {"input_ids": [ids, ids[:9], lab.prompt(i, 30, 2048)]}
        return "/generate", lab.generate(ids, tokens) | several, False
    fields = {"prompt": ids, "max_tokens": tokens, "stream": kind < 18, "temperature": 0.8}
    return "/v1/completions", fields | {"seed": i, "ignore_eos": True}, False


async def one(port, i, rng, gaps):
    path, wanted, wrong = body(i, rng)
    leaves = not wrong and rng.random() < 0.21
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(lab.raw("POST", path, wanted, close=True))
        if leaves:
            try:
                await asyncio.wait_for(reader.readexactly(rng.randrange(2000)), rng.random() * 0.2)
            except (asyncio.TimeoutError, asyncio.IncompleteReadError):
                pass
            return LEFT
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        status, last = int(head.split(b" ", 2)[1]), None
        streams = wanted.get("stream") and status == 200
        while piece := await asyncio.wait_for(reader.read(1 << 16), 60):
            now = time.perf_counter()
            if streams and last is not None:
                gaps.append((now, now - last))
            last = now
        if status != (400 if wrong else 200):
            raise SystemExit(f"{path} {wanted}: {status}")
        return WRONG if wrong else GOOD
    finally:
        writer.close()


async def worker(port, name, until, rng, counts, gaps):
    i = name * 1_000_000
    while time.perf_counter() < until:
        counts[await one(port, i, rng, gaps)] += 1
        i += 1


async def profiles(server, until, folder, counts):
    while time.perf_counter() < until:
        wanted = {"num_steps": 20, "output_dir": folder, "profile_id": f"soak{counts['profiles']}"}
        started = await asyncio.to_thread(server.ask, "POST", "/start_profile", wanted)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.ask, "POST", "/stop_profile", {})
        counts["profiles"] += started[0] == 200
        await asyncio.sleep(max(0, min(4, until - time.perf_counter())))


async def period(server, seconds, rng, counts, gaps, folder, width):
    until = time.perf_counter() + seconds
    workers = [worker(server.port, w, until, rng, counts, gaps) for w in range(width)]
    await asyncio.gather(*workers, profiles(server, until, folder, counts))


def slope(points):
    """Least squares: bytes a request."""
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mx) ** 2 for x, _ in points)
    return sum((x - mx) * (y - my) for x, y in points) / spread if spread else 0.0


def main():
    chosen = lab.options(__doc__, seconds=300, seed=1, width=24)
    rng, folder = random.Random(chosen.seed), tempfile.mkdtemp()
    counts = {GOOD: 0, LEFT: 0, WRONG: 0, "profiles": 0}
    # A small vocabulary, so that the work is the server's and the recorder's ring fills early.
    flags = ["--device", "null", "--profile-root", folder, "--profile-max-size", 8]
    flags += ["--json-model-override-args", '{"vocab_size": 2048}', "--max-total-tokens", 65536]
    periods = 20
    with lab.Server(chosen.pacer, *flags) as server:
        checks = lab.Checks("soak", "R44: soak under mixed load", server, chosen)
        base, leaks, memory, gaps = None, 0, [], []
        for at in range(periods):
            asyncio.run(period(server, chosen.seconds / periods, rng, counts, gaps, folder, chosen.width))
            leaks += server.wait_empty(10) is None
            if at % 5 == 4:
                server.ask("POST", "/flush_cache?timeout=5")
            time.sleep(0.2)
            now = (server.descriptors(), server.threads())
            base = base or now
            memory.append((sum(counts.values()), server.rss()))
        checks.note("requests answered", counts[GOOD])
        checks.note("left by their client", counts[LEFT])
        checks.note("wrong, refused with 400", counts[WRONG])
        checks.note("profiles taken", counts["profiles"])
        checks.equal("pauses with pages still held", leaks, 0)
        checks.equal("file descriptors, threads at the end", list(now), list(base))
        after = memory[periods // 5][1]
        checks.note("resident memory after a fifth", after / 2**20, "MiB")
        checks.at_most("resident memory at the end", memory[-1][1] / after, 1.05, "x")
        per_thousand = slope(memory[periods // 5 :]) * 1000 / 1024
        checks.at_most("slope of memory per 1,000 requests", per_thousand, 1, "KiB")
        gaps.sort()
        tenth = max(1, len(gaps) // 10)
        first = lab.percentile([g for _, g in gaps[tenth : 2 * tenth]], 0.99)
        last = lab.percentile([g for _, g in gaps[-tenth:]], 0.99)
        checks.note("gap between reads p99, second tenth", first * 1e3, "ms")
        checks.at_most("gap between reads p99, last tenth", last / first, 1.1, "x")
        checks.equal("alive", server.get("/health")[0], 200)
    checks.equal("exit code after SIGTERM", server.code, 0)
    checks.finish()


main()
