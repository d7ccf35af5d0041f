"""R6, R7, R11 and R12: floods of bytes, and what the system refuses.

R6: a 100 KB target, a 100 KB field, 10,000 fields, an endless head, 10,000 pipelined requests, a
64 KB chunk extension, a million one-byte chunks: refused or answered, at most 2 MiB of memory a
connection and one core second of the server a megabyte. R7: bodies that are announced and do not
come, beyond the cap, or compressed. R11: 128 file descriptors and 400 connections: running streams
go on, the accept loop does not spin, and it recovers within a second. R12: interrupted, refused and
reset system calls (strace -e inject, where strace is there): no answer is lost."""

import asyncio
import json
import resource
import shutil
import socket
import subprocess
import tempfile
import time

import lab

MIB = 1 << 20


def exchange(port, pieces, limit=30):
    """Sends all it can, then reads to the end: the answer and the bytes sent."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=limit) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        answer = b""
        try:
            while piece := client.recv(1 << 16):
                answer += piece
        except OSError:
            pass
    return answer, sent


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def endless(size, piece=b"x" * 65536):
    for _ in range(size // len(piece)):
        yield piece


def flood(checks, server, name, pieces, allowed):
    memory, cpu = server.rss(), server.cpu()
    answer, sent = exchange(server.port, pieces)
    grown, used = (server.rss() - memory) / MIB, server.cpu() - cpu
    checks.add(f"{name}: status", status(answer), f"one of {allowed}", "", status(answer) in allowed)
    checks.at_most(f"{name}: memory", grown, 2, "MiB")
    checks.at_most(f"{name}: CPU a MB sent", used / max(1.0, sent / 1e6), 1, "s")
    return answer


def floods(checks, server):
    host = b"Host: localhost\r\n"
    get = b"GET /health HTTP/1.1\r\n" + host
    flood(checks, server, "target of 100 KB", [b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"], [414])
    ok = [b"GET /" + b"a" * 7990 + b" HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"]
    flood(checks, server, "target of 8,000", ok, [404])
    flood(checks, server, "field of 100 KB", [get + b"X: " + b"a" * 100_000 + b"\r\n\r\n"], [431])
    many = b"".join(b"X-%d: a\r\n" % i for i in range(10_000))
    flood(checks, server, "10,000 fields", [get + many + b"\r\n"], [431])
    flood(checks, server, "head of 1 GB", [get + b"X: ", *endless(64 << 20)], [431, 0])
    pipelined = get + b"\r\n"
    last = get + b"Connection: close\r\n\r\n"
    answer = pipeline(server.port, pipelined * 9_999 + last)
    checks.equal("10,000 pipelined requests: answers", answer.count(b"HTTP/1.1 200"), 10_000)
    chunked = b"POST /generate HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    extension = chunked + b"1;" + b"a" * 65_536 + b"\r\na\r\n0\r\n\r\n"
    flood(checks, server, "chunk extension of 64 KB", [extension], [400, 413, 431])
    bytewise = [chunked, *(b"1\r\n \r\n" * 10_000 for _ in range(100)), b"0\r\n\r\n"]
    flood(checks, server, "a million one-byte chunks", bytewise, [400])
    bodies(checks, server, host)


def pipeline(port, data):
    """Sends and reads at the same time."""
    async def both():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(-1), 60)
        writer.close()
        return answer

    return asyncio.run(both())


def bodies(checks, server, host):
    head = b"POST /generate HTTP/1.1\r\n" + host
    memory = server.rss()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head + b"Content-Length: 999999999\r\n\r\n")
        client.settimeout(20)
        checks.equal("body of 1 GB announced: status", status(client.recv(4096)), 413)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head + b"Content-Length: 33000000\r\n\r\n")
        time.sleep(0.2)
        checks.at_most("bodies announced: memory", (server.rss() - memory) / MIB, 1, "MiB")
    zipped = head + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"
    checks.equal("compressed body: status", status(exchange(server.port, [zipped])[0]), 400)


async def stream(port, tokens):
    """The tokens of a stream that came to its end."""
    answer = await lab.ask(port, lab.generate(lab.prompt(3, 16), tokens, stream=True), 120)
    events = [line[6:] for line in answer[2].splitlines() if line.startswith(b"data: ")]
    ended = events and events[-1] == b"[DONE]"
    return len(json.loads(events[-2])["output_ids"]) if ended else 0


async def starved(server, count):
    running = asyncio.ensure_future(stream(server.port, 2500))
    await asyncio.sleep(0.5)
    held = []
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        try:
            client.connect(("127.0.0.1", server.port))
        except OSError:
            pass
        held.append(client)
    await asyncio.sleep(1)
    idle = not running.done()
    answered = await running
    # Without a stream to serve, all that is left is the accept loop.
    cpu, begun = server.cpu(), time.perf_counter()
    await asyncio.sleep(3)
    share = (server.cpu() - cpu) / (time.perf_counter() - begun)
    for client in held:
        client.close()
    begun = time.perf_counter()
    while True:
        try:
            if server.get("/health")[0] == 200:
                break
        except OSError:
            pass
        if time.perf_counter() - begun > 10:
            break
        await asyncio.sleep(0.02)
    return answered, idle, share, time.perf_counter() - begun


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))


def starvation(checks, chosen):
    flags = ["--device", "null", "--max-connections", 16384]
    with lab.Server(chosen.pacer, *flags, before=few_descriptors) as server:
        answered, _, share, recovery = asyncio.run(starved(server, 400))
        checks.equal("128 descriptors, 400 connections: tokens of a running stream", answered, 2500)
        checks.at_most("128 descriptors: CPU of the accept loop", share * 100, 5, "%")
        checks.at_most("128 descriptors: serves again after", recovery, 1, "s")


def injected(checks, server, fault):
    """Every request is answered whole although the kernel says no now and then."""
    log = tempfile.NamedTemporaryFile()
    command = ["strace", "-f", "-qq", "-e", f"trace={fault.split(':')[0]}", "-e", f"inject={fault}"]
    tracer = subprocess.Popen([*command, "-o", log.name, "-p", str(server.pid)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    whole, worst = 0, 0.0
    for i in range(40):
        begun = time.perf_counter()
        try:
            answer = server.ask("POST", "/generate", lab.generate(lab.prompt(i, 16), 20), timeout=10)
            whole += answer[0] == 200 and len(json.loads(answer[1])["output_ids"]) == 20
        except OSError:
            pass
        worst = max(worst, time.perf_counter() - begun)
    tracer.terminate()
    tracer.wait()
    checks.note(f"inject {fault}: times", log.read().count(b"(INJECTED)"))
    checks.equal(f"inject {fault}: whole answers of 40", whole, 40)
    checks.at_most(f"inject {fault}: slowest", worst, 1.5, "s")


def main():
    chosen = lab.options(__doc__)
    lab.raise_file_limit(2000)
    with lab.Server(chosen.pacer, "--device", "null") as server:
        checks = lab.Checks("floods", "R6, R7, R11, R12: floods and refusals", server, chosen)
        floods(checks, server)
        if shutil.which("strace"):
            for fault in ["recvfrom:error=EINTR:when=2+3", "recvfrom:error=EAGAIN:when=2+5",
                          "sendto:error=EINTR:when=1+3", "epoll_wait:error=EINTR:when=1+2",
                          "accept4:error=ECONNABORTED:when=1+2"]:
                injected(checks, server, fault)
        checks.equal("alive", server.get("/health")[0], 200)
    starvation(checks, chosen)
    checks.finish()


main()
