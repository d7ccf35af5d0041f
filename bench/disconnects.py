"""R27: 500 clients that leave (reset, close, half-close) at a random byte of their stream, also
while queued, with n 1 or 4. Their pages are free within one step and 50 ms, nothing leaks, and a
neighbour's tokens do not change. Default configuration, dummy weights, CPU."""

import asyncio
import json
import random
import socket
import struct
import time

import lab


async def leave(port, i, rng):
    body = lab.generate(lab.prompt(i, 24), 200, stream=True, n=rng.choice([1, 1, 4]))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(lab.raw("POST", "/generate", body))
    how, wanted = rng.choice(["reset", "close", "half"]), rng.randrange(4000)
    try:
        # Some of them leave before their first byte, while they wait in the queue.
        await asyncio.wait_for(reader.readexactly(wanted), 0.05 + 0.4 * rng.random())
    except (asyncio.TimeoutError, asyncio.IncompleteReadError):
        pass
    if how == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    elif how == "half" and writer.can_write_eof():
        writer.write_eof()
        await asyncio.sleep(0.02)
    writer.close()


async def alone(server, rng):
    """Seconds until one client's pages are free after it left, over several."""
    times = []
    for i in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = lab.generate(lab.prompt(900 + i, 24), 400, stream=True)
        writer.write(lab.raw("POST", "/generate", body))
        await reader.readexactly(300 + rng.randrange(2000))
        writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        times.append(server.wait_empty(5))
        if times[-1] is None:
            break
    return times


async def crowd(server, count, rng):
    neighbour = lab.generate(lab.prompt(7, 40), 120)
    expected = json.loads(server.ask("POST", "/generate", neighbour)[1])["output_ids"]
    others = asyncio.gather(*(lab.ask(server.port, neighbour, 300) for _ in range(4)))
    tasks = []
    for i in range(count):
        tasks.append(asyncio.ensure_future(leave(server.port, i, rng)))
        await asyncio.sleep(0.004)
    await asyncio.gather(*tasks)
    left = time.perf_counter()
    answers = await others
    ids = [json.loads(a[2])["output_ids"] for a in answers if a[0] == 200]
    return sum(found == expected for found in ids), left


def main():
    chosen = lab.options(__doc__, count=500, seed=1)
    lab.raise_file_limit(2000)
    rng = random.Random(chosen.seed)
    with lab.Server(chosen.pacer, "--max-running-requests", 16) as server:
        checks = lab.Checks("disconnects", "R27: clients that leave", server, chosen)
        same, _ = asyncio.run(crowd(server, chosen.count, rng))
        checks.equal("neighbours with unchanged tokens, of 4", same, 4)
        free = server.wait_empty(10)
        checks.at_most("all pages free after the last request", free, 1, "s")
        figures = server.figures()
        checks.at_least("requests cut short", figures["sglang:num_aborted_requests_total"], 100)
        checks.equal("choices running or queued", figures["sglang:num_running_reqs"]
                     + figures["sglang:num_queue_reqs"], 0)
        steps = figures["pacer_steps_total"]
        time.sleep(0.3)
        checks.equal("steps for those who left", server.figures()["pacer_steps_total"] - steps, 0)
        times = asyncio.run(alone(server, rng))
        good = [t for t in times if t is not None]
        checks.equal("leaks", len(times) - len(good), 0)
        checks.note("one client's pages free after, p50", lab.percentile(good, 0.5) * 1e3, "ms")
        checks.at_most("one client's pages free after, p99", lab.percentile(good, 0.99) * 1e3, 100, "ms")
        checks.equal("alive", server.get("/health")[0], 200)
    checks.finish()


main()
