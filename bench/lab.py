"""What the load scripts share: a server of our own, a small HTTP client, checks with bars."""

import argparse
import asyncio
import datetime
import http.client
import json
import os
import pathlib
import platform
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def options(doc, **defaults):
    """`--pacer`, `--out`, and a flag for each default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pacer", default=str(ROOT / "target/release/pacer"), help="the binary")
    parser.add_argument("--out", default=str(ROOT / "bench/results"), help="folder for the results")
    for name, value in defaults.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(value), default=value, help=f"default {value}")
    return parser.parse_args()


def raise_file_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted)), hard))


class Server:
    """`pacer serve` on a free port, as a context."""

    def __init__(self, pacer, *flags, before=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [pacer, "serve", "--port", str(self.port), *map(str, flags)]
        self.log = tempfile.TemporaryFile()
        self.before = before

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=self.log, preexec_fn=self.before)
        self.pid = self.process.pid
        for _ in range(1200):
            if self.process.poll() is not None:
                raise SystemExit(f"{' '.join(self.command)} ended: {self.said()}")
            try:
                if self.get("/health")[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("the server did not become healthy within a minute")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.code = self.process.wait()

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]

    def ask(self, method, path, body=None, timeout=60):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path):
        return self.ask("GET", path)

    def figures(self):
        """`/metrics` by name with labels other than the model's; `name` alone where there are none."""
        found = {}
        for line in self.get("/metrics")[1].decode().splitlines():
            match = re.fullmatch(r'([\w:]+)\{model_name="[^"]*",?(.*)\} (\S+)', line)
            if match:
                name, labels, value = match.groups()
                found[f"{name}{{{labels}}}" if labels else name] = float(value)
        return found

    def pages_used(self):
        return self.figures()['pacer_pages{state="used"}']

    def wait_empty(self, limit):
        """Seconds until no page is held, or None."""
        begun = time.perf_counter()
        while time.perf_counter() - begun < limit:
            if self.pages_used() == 0:
                return time.perf_counter() - begun
            time.sleep(0.002)
        return None

    def rss(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024

    def cpu(self):
        """CPU seconds so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))


def prompt(seed, length, vocab=32000):
    return [100 + (seed * 7919 + i * 104729) % (vocab - 200) for i in range(length)]


def generate(ids, tokens, stream=False, **more):
    """A `/generate` body, greedy."""
    sampling = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True} | more
    return {"input_ids": ids, "stream": stream, "sampling_params": sampling}


def raw(method, path, body=b"", close=False):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    end = "Connection: close\r\n" if close else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{end}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(port, body, timeout=120):
    """One `/generate` over a connection of its own: status, headers, body, seconds to the first
    byte of the body and in all."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw("POST", "/generate", body, close=True))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout)
        status = int(head.split(b" ", 2)[1])
        first = await asyncio.wait_for(reader.read(1), timeout)
        ttft = time.perf_counter() - begun
        rest = first + await asyncio.wait_for(reader.read(), timeout)
        return status, head.decode().lower(), rest, ttft, time.perf_counter() - begun
    finally:
        writer.close()


def percentile(values, share):
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Checks:
    """Figures with their bars; prints a table, writes JSON, says how to exit."""

    def __init__(self, name, title, server, chosen):
        self.name, self.title, self.rows = name, title, []
        self.out, self.server = pathlib.Path(chosen.out), server
        self.begun = time.time()

    def at_most(self, what, value, bar, unit=""):
        self.add(what, value, f"≤ {bar}", unit, value is not None and value <= bar)

    def at_least(self, what, value, bar, unit=""):
        self.add(what, value, f"≥ {bar}", unit, value is not None and value >= bar)

    def equal(self, what, value, wanted, unit=""):
        self.add(what, value, f"= {wanted}", unit, value == wanted)

    def note(self, what, value, unit=""):
        self.add(what, value, "", unit, True)

    def add(self, what, value, bar, unit, holds):
        value = round(value, 3) if isinstance(value, float) else value
        row = {"figure": what, "value": value, "unit": unit, "bar": bar, "holds": bool(holds)}
        self.rows.append(row)
        mark = "ok" if holds else "MISSED"
        print(f"{mark if bar else '':6}  {what}: {value} {unit}  {bar}".rstrip(), flush=True)

    def finish(self):
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        version = subprocess.run([self.server.command[0], "--version"], capture_output=True, text=True)
        about = {
            "name": self.name,
            "title": self.title,
            "command": " ".join(["pacer", *self.server.command[1:]]),
            "script": " ".join(["bench/" + pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
            "version": version.stdout.strip(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}",
            "load_average": os.getloadavg()[0],
            "seconds": round(time.time() - self.begun, 1),
            "rows": self.rows,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / f"server-{self.name}.json").write_text(json.dumps(about, indent=1) + "\n")
        missed = [row for row in self.rows if not row["holds"]]
        print(f"{self.name}: {len(self.rows)} figures, {len(missed)} missed, {about['seconds']} s")
        sys.exit(1 if missed else 0)
