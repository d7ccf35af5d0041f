"""R8 and R9: clients that send a head or a body slowly, or do not read their answer.

2,000 connections send one head byte by byte (as slowhttptest -H -c 2000 -i 5): all are closed
within 11 s, and others are served meanwhile. The same for bodies below 1 KiB/s. Then readers that
never read a long stream: they are aborted and their pages come back within 50 s of their start, and
others get the same tokens a second, within 5 %, as beside clients that do read (default
configuration on the CPU, a median of three against three)."""

import asyncio
import socket
import statistics
import threading
import time

import lab


class Probe(threading.Thread):
    """Asks for /health again and again."""

    def __init__(self, server):
        super().__init__()
        self.server, self.times, self.failed, self.stop = server, [], 0, False

    def run(self):
        while not self.stop:
            begun = time.perf_counter()
            try:
                good = self.server.get("/health")[0] == 200
            except OSError:
                good = False
            self.failed += not good
            self.times.append(time.perf_counter() - begun)
            time.sleep(0.1)


async def drip(port, head, pause, limit):
    """Sends `head`, then a byte each `pause`; how long until the server ended it, or None."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.perf_counter()
    writer.write(head)
    ended = asyncio.ensure_future(reader.read())
    while time.perf_counter() - begun < limit:
        done, _ = await asyncio.wait([ended], timeout=pause)
        if done:
            writer.close()
            return time.perf_counter() - begun
        writer.write(b"a")
    ended.cancel()
    writer.close()
    return None


async def attack(port, count, head, limit):
    tasks = []
    for i in range(count):
        tasks.append(asyncio.ensure_future(drip(port, head, 5, limit)))
        if i % 50 == 49:
            await asyncio.sleep(0.1)
    return await asyncio.gather(*tasks)


def slow(checks, server, what, count, head, limit):
    probe = Probe(server)
    probe.start()
    times = asyncio.run(attack(server.port, count, head, limit + 6))
    probe.stop = True
    probe.join()
    closed = [t for t in times if t is not None]
    checks.equal(f"slow {what}: closed of {count}", len(closed), count)
    checks.at_most(f"slow {what}: the last one closed after", max(closed, default=0), limit, "s")
    checks.equal(f"slow {what}: others refused meanwhile", probe.failed, 0)
    checks.at_most(f"slow {what}: /health p99", lab.percentile(probe.times, 0.99) * 1e3, 50, "ms")


async def rate(port):
    """Tokens a second of four answers of 60 tokens."""
    begun = time.perf_counter()
    bodies = [lab.generate(lab.prompt(i, 16), 60) for i in range(4)]
    answers = await asyncio.gather(*(lab.ask(port, body) for body in bodies))
    assert all(a[0] == 200 for a in answers), answers[0][:2]
    return 240 / (time.perf_counter() - begun)


async def open_stream(port, i, reads):
    """A long stream; what reads it, if anything does."""
    client = socket.socket()
    # Little room in the kernel, so that the server notices soon.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=client, limit=4096)
    if not reads:
        writer.transport.pause_reading()
    body = lab.generate(lab.prompt(50 + i, 16), 6000, stream=True)
    body |= {"return_logprob": True, "top_logprobs_num": 20}
    writer.write(lab.raw("POST", "/generate", body))

    async def swallow():
        while await reader.read(1 << 16):
            pass

    return writer, asyncio.ensure_future(swallow()) if reads else None


async def beside(server, count, reads):
    """Others' tokens a second beside streams that are read, or are not."""
    opened = [await open_stream(server.port, i, reads) for i in range(count)]
    await asyncio.sleep(4)
    found = statistics.median([await rate(server.port) for _ in range(3)])
    if reads:
        for writer, task in opened:
            task.cancel()
            writer.close()
        await asyncio.to_thread(server.wait_empty, 20)
    return found, opened


async def deaf(checks, server, count):
    read, _ = await beside(server, count, True)
    begun = time.perf_counter()
    unread, opened = await beside(server, count, False)
    checks.note("others' tokens/s beside clients that read", read)
    checks.note("others' tokens/s beside clients that do not", unread)
    checks.at_most("deaf readers: others lose", (1 - unread / read) * 100, 5, "%")
    free = await asyncio.to_thread(server.wait_empty, 60)
    waited = None if free is None else time.perf_counter() - begun
    checks.at_most("deaf readers: aborted, pages free after", waited, 50, "s")
    for writer, _ in opened:
        writer.close()


def main():
    chosen = lab.options(__doc__, count=2000, readers=8)
    lab.raise_file_limit(chosen.count + 200)
    with lab.Server(chosen.pacer, "--device", "null") as server:
        checks = lab.Checks("slow-clients", "R8, R9: slow and deaf clients", server, chosen)
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-a: "
        slow(checks, server, "head", chosen.count, head, 11)
        body = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"
        slow(checks, server, "body", chosen.count, body, 12)
        checks.equal("alive", server.get("/health")[0], 200)
    with lab.Server(chosen.pacer, "--context-length", 8192) as server:
        asyncio.run(deaf(checks, server, chosen.readers))
        checks.equal("alive", server.get("/health")[0], 200)
    checks.finish()


main()
