"""R34: ten times the server's capacity, open loop. First the capacity (closed loop, as many in
flight as run at once), then TTFT at capacity, then ten times that rate. Every request has an
answer; refusals are 429 or 503 with Retry-After and quick; accepted ones see their first token
within 1.2 times of what they see at capacity with a full queue; memory stays. Default
configuration with dummy weights on the CPU, queue capped. The model has one core and the load's
client the other, or the client would slow down what it measures; the cache is small, so that all
of its memory is in use before the measurement begins."""

import asyncio
import time

import lab

TOKENS, INPUT = 16, 32


async def send(port, i, out, stream):
    out.append(await lab.ask(port, lab.generate(lab.prompt(i, INPUT), TOKENS, stream=stream)))


async def closed(port, seconds, width):
    """Requests a second with `width` in flight."""
    answers, until = [], time.perf_counter() + seconds
    numbers = iter(range(10**6))

    async def one(at):
        # One after another, as a burst would find no place in the queue.
        await asyncio.sleep(at * 0.02)
        while time.perf_counter() < until:
            answer = []
            await send(port, next(numbers), answer, True)
            if answer[0][0] == 200:
                answers.extend(answer)
            else:
                await asyncio.sleep(0.02)

    begun = time.perf_counter()
    await asyncio.gather(*(one(at) for at in range(width)))
    return len(answers) / (time.perf_counter() - begun), answers


async def open_loop(port, rate, seconds, first):
    answers, tasks, begun = [], [], time.perf_counter()
    count = int(rate * seconds)
    for i in range(count):
        delay = begun + i / rate - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.ensure_future(send(port, first + i, answers, True)))
    failed = [r for r in await asyncio.gather(*tasks, return_exceptions=True) if r is not None]
    return count, answers, failed


async def load(checks, server, chosen):
    port = server.port
    await closed(port, 2, chosen.running)
    # As many in flight as may run and wait: the queue is as full as it may be, nothing is refused.
    width = chosen.running + chosen.queue
    capacity, answers = await closed(port, chosen.seconds / 3, width)
    full = [a[3] for a in answers[width:]] or [a[3] for a in answers]
    memory = server.rss()
    checks.note("capacity", capacity, "requests/s")
    checks.note("at capacity with a full queue: TTFT p50", lab.percentile(full, 0.5) * 1e3, "ms")
    count, answers, failed = await open_loop(port, capacity * 10, chosen.seconds, 10**6)
    good = [a for a in answers if a[0] == 200]
    refused = [a for a in answers if a[0] in (429, 503)]
    checks.equal("answers to requests sent", len(answers), count)
    checks.equal("connections that broke", len(failed), 0)
    checks.equal("served or refused properly", len(good) + len(refused), count)
    checks.at_least("refused", len(refused), count // 2)
    bare = sum("retry-after:" not in a[1] for a in refused)
    checks.equal("refusals without Retry-After", bare, 0)
    checks.at_most("refused within, p99", lab.percentile([a[4] for a in refused], 0.99) * 1e3, 50, "ms")
    whole = sum(a[2].count(b"data: ") >= 2 and b"[DONE]" in a[2] for a in good)
    checks.equal("served whole", whole, len(good))
    checks.at_least("served against capacity", len(good) / chosen.seconds / capacity, 0.5, "x")
    for share, name in [(0.5, "p50"), (0.99, "p99")]:
        ratio = lab.percentile([a[3] for a in good], share) / lab.percentile(full, share)
        checks.at_most(f"accepted: TTFT {name} against capacity", ratio, 1.2, "x")
    checks.at_most("resident memory grew by", (server.rss() - memory) / 2**20, 8, "MiB")


def main():
    chosen = lab.options(__doc__, seconds=60, running=8, queue=32)
    lab.raise_file_limit(8000)
    flags = ["--max-running-requests", chosen.running, "--max-queued-requests", chosen.queue]
    flags += ["--threads", 1, "--max-total-tokens", 4096]
    with lab.Server(chosen.pacer, *flags) as server:
        checks = lab.Checks("overload", "R34: ten times the capacity", server, chosen)
        asyncio.run(load(checks, server, chosen))
        checks.equal("pages held afterwards", server.wait_empty(10) is not None, True)
        checks.equal("alive", server.get("/health")[0], 200)
    checks.finish()


main()
