"""R29: a pool of 64 pages, 200 requests that want 20 times as much at once. Every request finishes
with the tokens of an uncontended run, somebody was preempted, the longest wait is at most three
times the ideal (all the work ahead at the measured rate), and what can never fit is refused within
100 ms. Default configuration with dummy weights on the CPU."""

import asyncio
import json
import time

import lab

PAGE = 16


def shape(i):
    """Prompt and output length of request i: 6.5 pages on average."""
    return 24 + i * 13 % 40, 40 + i * 29 % 40


def body(i):
    length, tokens = shape(i)
    return lab.generate(lab.prompt(i, length), tokens)


async def all_at_once(port, count):
    return await asyncio.gather(*(lab.ask(port, body(i), 600) for i in range(count)))


def ids(answer):
    return json.loads(answer[2])["output_ids"]


def run(chosen, flags, count):
    with lab.Server(chosen.pacer, *flags) as server:
        begun = time.perf_counter()
        answers = asyncio.run(all_at_once(server.port, count))
        seconds = time.perf_counter() - begun
        return server, answers, seconds, server.figures()


def main():
    chosen = lab.options(__doc__, count=200)
    pages = sum(-(-sum(shape(i)) // PAGE) for i in range(chosen.count))
    _, free, _, _ = run(chosen, ["--disable-radix-cache"], chosen.count)
    expected = [ids(a) for a in free]
    small = ["--max-total-tokens", 64 * PAGE, "--page-size", PAGE]
    with lab.Server(chosen.pacer, *small) as server:
        checks = lab.Checks("kv-pressure", "R29: 64 pages, 20 times the demand", server, chosen)
        begun = time.perf_counter()
        answers = asyncio.run(all_at_once(server.port, chosen.count))
        seconds = time.perf_counter() - begun
        figures = server.figures()
        checks.at_least("demand against the pool", pages / 64, 20, "x")
        checks.equal("finished", sum(a[0] == 200 for a in answers), chosen.count)
        same = sum(a[0] == 200 and ids(a) == e for a, e in zip(answers, expected))
        checks.equal("with the tokens of the uncontended run", same, chosen.count)
        checks.at_least("preemptions", figures["pacer_preemptions_total"], 1)
        # Ideal: whoever came before (all arrive together, in this order) is served at the rate
        # that the whole run reached; the first ones need at least a twentieth of it.
        metas = [json.loads(a[2])["meta_info"] for a in answers]
        waits = [meta.get("queue_time", meta["first_token_latency"]) for meta in metas]
        work = [sum(shape(i)) for i in range(chosen.count)]
        ahead, worst = 0, 0.0
        for i, wait in enumerate(waits):
            ahead += work[i]
            ideal = max(ahead / sum(work) * seconds, seconds / 20)
            worst = max(worst, wait / ideal)
        checks.note("whole run", seconds, "s")
        checks.note("longest wait in the queue", max(waits), "s")
        checks.at_most("longest wait against the ideal", worst, 3, "x")
        begun = time.perf_counter()
        status, _ = server.ask("POST", "/generate", lab.generate(lab.prompt(1, 900), 900))
        checks.equal("larger than the pool: status", status, 400)
        checks.at_most("larger than the pool: refused within", (time.perf_counter() - begun) * 1e3, 100, "ms")
        status, answer = server.ask("POST", "/generate", body(3))
        checks.equal("the queue flows", (status, json.loads(answer)["output_ids"] == expected[3]), (200, True))
    checks.finish()


main()
