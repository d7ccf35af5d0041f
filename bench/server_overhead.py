"""What the server itself costs (needs nothing but the binary): `pacer serve --device null` computes
nothing, so requests a second, time to first token and CPU time a token are those of sockets, HTTP,
JSON, scheduler and queues. Load: `pacer bench-serving`, closed loop, streaming, token ids in (32),
64 tokens out, at concurrency 1, 64 and 1024. Bars: all answered with exact totals; the event loop
never blocked for more than 10 ms, that is, computing or waiting; the time that the system gave to
the client or the engine's thread instead is not the loop's, and shows in how long it was away."""

import json
import subprocess
import tempfile

import lab

OUTPUT = 64
# A small vocabulary: choosing a token is the sampler's work, not the server's.
VOCAB = {"vocab_size": 2048}
CASES = [(1, 300), (64, 6000), (1024, 12000)]


def case(checks, server, chosen, concurrency, requests):
    before, cpu = server.figures(), server.cpu()
    with tempfile.NamedTemporaryFile() as out:
        command = [chosen.pacer, "bench-serving", "--base-url", f"http://127.0.0.1:{server.port}"]
        command += ["--num-prompts", requests, "--max-concurrency", concurrency, "--disable-tqdm"]
        command += ["--random-input-len", 32, "--random-output-len", OUTPUT]
        command += ["--random-range-ratio", 1, "--vocab-size", 2048, "--output-file", out.name]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        row = json.loads(out.read().splitlines()[-1])
    cpu, after = server.cpu() - cpu, server.figures()
    tokens = after["sglang:generation_tokens_total"] - before["sglang:generation_tokens_total"]
    at = f"concurrency {concurrency}: "
    checks.equal(at + "requests answered", row["completed"], requests)
    checks.equal(at + "output tokens", row["total_output_tokens"], requests * OUTPUT)
    checks.note(at + "requests/s", row["request_throughput"])
    checks.note(at + "tokens/s", row["output_throughput"])
    checks.note(at + "TTFT p50", row["median_ttft_ms"], "ms")
    checks.note(at + "TTFT p99", row["p99_ttft_ms"], "ms")
    checks.note(at + "ITL p50", row["median_itl_ms"], "ms")
    checks.note(at + "server CPU a token", cpu / tokens * 1e6, "us")


def main():
    chosen = lab.options(__doc__)
    flags = ["--device", "null", "--max-running-requests", 1024, "--chunked-prefill-size", 8192]
    flags += ["--max-total-tokens", 400000, "--json-model-override-args", json.dumps(VOCAB)]
    with lab.Server(chosen.pacer, *flags) as server:
        checks = lab.Checks("overhead", "Server overhead with a null model", server, chosen)
        for concurrency, requests in CASES:
            case(checks, server, chosen, concurrency, requests)
        figures = server.figures()
        away = figures["pacer_loop_busy_seconds_max"]
        blocked = figures["pacer_loop_blocked_seconds_max"]
        checks.note("event loop away from its poll, longest", away * 1e3, "ms")
        checks.at_most("event loop blocked, longest", blocked * 1e3, 10, "ms")
    checks.equal("exit code after SIGTERM", server.code, 0)
    checks.finish()


main()
