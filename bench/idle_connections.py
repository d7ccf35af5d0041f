"""R10: many idle connections (10,000) and what they cost: time to open them, refused ones, resident
memory each, how long a request takes beside them, CPU while nothing happens, and that they are
closed at the keep-alive deadline."""

import socket
import time

import lab


def request(port):
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:60]
    return time.perf_counter() - begun


def main():
    chosen = lab.options(__doc__, count=10_000, keep_alive=30)
    lab.raise_file_limit(chosen.count + 200)
    flags = ["--device", "null", "--keep-alive-timeout", chosen.keep_alive]
    with lab.Server(chosen.pacer, *flags) as server:
        checks = lab.Checks("idle-connections", "R10: idle connections", server, chosen)
        before, begun, held, refused = server.rss(), time.perf_counter(), [], 0
        for _ in range(chosen.count):
            try:
                held.append(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            except OSError:
                refused += 1
        opened = time.perf_counter() - begun
        request(server.port)
        memory = (server.rss() - before) / max(1, len(held))
        times = [request(server.port) for _ in range(200)]
        cpu = server.cpu()
        time.sleep(5)
        idle = (server.cpu() - cpu) / 5
        checks.equal("connections held", len(held), chosen.count)
        checks.equal("refused", refused, 0)
        checks.at_most("opened in", opened, 3, "s")
        checks.at_most("resident memory each", memory, 2048, "bytes")
        checks.note("new request p50", lab.percentile(times, 0.5) * 1e3, "ms")
        checks.at_most("new request p99", lab.percentile(times, 0.99) * 1e3, 10, "ms")
        checks.at_most("CPU while idle", idle * 100, 1, "%")
        limit = begun + opened + chosen.keep_alive + 5
        while time.perf_counter() < limit and server.figures()["pacer_connections"] > 1:
            time.sleep(0.5)
        left = server.figures()["pacer_connections"] - 1
        checks.equal("open after the keep-alive deadline", int(left), 0)
        held.clear()
    checks.finish()


main()
