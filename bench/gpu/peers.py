#!/usr/bin/env python3
"""PyTorch's products (cuBLAS), attention (SDPA) and decode loop (a CUDA graph) on the shapes that
`pacer kernels bench` and the dummy models use, on the same card in the same run.

    peers.py --output peers.jsonl [--small] [--device cuda]

Needs torch with CUDA. --device cpu with --small only tries the script.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

LAYERS = {"8B qkv": (6144, 4096), "8B o": (4096, 4096), "8B gate-up": (28672, 4096),
          "8B down": (4096, 14336), "8B lm_head": (128256, 4096)}
MODELS = {  # layers, hidden, intermediate, heads, kv heads, head size, vocabulary
    "llama-3.1-8b": (32, 4096, 14336, 32, 8, 128, 128256),
    "llama-3.2-1b": (16, 2048, 8192, 32, 8, 64, 128256),
}
TINY = (2, 64, 128, 2, 1, 64, 256)


class Clock:
    """Seconds per call, from a cold L2 and back to back."""

    def __init__(self, device, repeat):
        self.cuda, self.repeat = device == "cuda", repeat
        self.flush = torch.empty(256 << 20 if self.cuda else 1 << 16, dtype=torch.uint8,
                                 device=device)

    def _event(self):
        return torch.cuda.Event(enable_timing=True)

    def once(self, call):
        if not self.cuda:
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        begin, end = self._event(), self._event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def cold(self, call):
        def one():
            self.flush.zero_()
            return self.once(call)
        call()
        return statistics.median(one() for _ in range(self.repeat))

    def warm(self, call):
        call()
        if not self.cuda:
            return statistics.median(self.once(call) for _ in range(self.repeat))
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(self.repeat):
                call()
        graph.replay()
        return statistics.median(self.once(graph.replay) for _ in range(3)) / self.repeat


def row(out, subject, cold, warm, least, flops):
    line = {"subject": subject, "by": f"torch {torch.__version__}", "cold_us": cold * 1e6,
            "warm_us": warm * 1e6, "gb_per_s": least / cold / 1e9,
            "tflop_per_s": flops / warm / 1e12}
    out.write(json.dumps(line) + "\n")
    print(f"{subject:40} {cold * 1e6:10.2f} us cold {warm * 1e6:10.2f} us warm "
          f"{least / cold / 1e9:8.0f} GB/s {flops / warm / 1e12:8.1f} TFLOP/s", flush=True)


def numbers(device, *shape):
    return torch.empty(*shape, dtype=torch.bfloat16, device=device).uniform_(-1, 1)


def products(out, clock, device, small):
    shapes = [(name, m, n, k) for name, (n, k) in LAYERS.items() for m in (1, 8, 32, 128, 4096)
              if name != "8B lm_head" or m <= 128]
    shapes += [("ladder", 1 << i, 2112, 7168) for i in range(14)]
    for name, m, n, k in [("tiny", 2, 64, 64)] if small else shapes:
        x, w = numbers(device, m, k), numbers(device, n, k)
        call = lambda: F.linear(x, w)
        row(out, f"gemm {name} {m}x{n}x{k}", clock.cold(call), clock.warm(call),
            2 * (m * k + n * k + m * n), 2 * m * n * k)


def attention(out, clock, device, small):
    for name, heads, kv, dim in [("8B", 32, 8, 128), ("1B", 32, 8, 64)]:
        for spans, length in [(1, 16)] if small else [(1, 1024), (1, 4096), (1, 8192), (8, 1024)]:
            q = numbers(device, spans, heads, length, dim)
            k, v = numbers(device, spans, kv, length, dim), numbers(device, spans, kv, length, dim)
            call = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            pairs = length * (length + 1) // 2
            row(out, f"attention prefill {name} {spans}x{length} after 0", clock.cold(call),
                clock.warm(call), spans * 4 * length * dim * (heads + kv),
                spans * 4 * pairs * heads * dim)


def decode(out, clock, device, small):
    """One step of a Llama of batch 1 over a cache of 128 tokens: what torch does without a
    serving engine, each kernel in a CUDA graph."""
    for name, sizes in [("tiny", TINY)] if small else MODELS.items():
        layers, hidden, wide, heads, kv, dim, vocab = sizes
        shapes = {"qkv": ((heads + 2 * kv) * dim, hidden), "o": (hidden, heads * dim),
                  "up": (2 * wide, hidden), "down": (hidden, wide)}
        weights = [{k: numbers(device, *s) for k, s in shapes.items()} for _ in range(layers)]
        norm, head = numbers(device, hidden), numbers(device, vocab, hidden)
        cache = numbers(device, layers, 2, 1, kv, 128, dim)
        x0 = numbers(device, 1, hidden)

        def step():
            x = x0
            for w, kvs in zip(weights, cache):
                h = F.rms_norm(x, (hidden,), norm)
                q = F.linear(h, w["qkv"])[:, :heads * dim].view(1, heads, 1, dim)
                a = F.scaled_dot_product_attention(q, kvs[0], kvs[1], enable_gqa=True)
                x = x + F.linear(a.reshape(1, heads * dim), w["o"])
                gate, up = F.linear(F.rms_norm(x, (hidden,), norm), w["up"]).chunk(2, dim=-1)
                x = x + F.linear(F.silu(gate) * up, w["down"])
            return F.linear(F.rms_norm(x, (hidden,), norm), head).argmax()

        least = 2 * (sum(w.numel() for layer in weights for w in layer.values()) + head.numel())
        with torch.no_grad():
            row(out, f"decode step {name}, batch 1", clock.cold(step), clock.warm(step), least,
                least)
        del weights, head, cache


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    args = parser.parse_args()
    clock = Clock(args.device, 3 if args.small else 20)
    with open(args.output, "a") as out, torch.no_grad():
        for part in (products, attention, decode):
            part(out, clock, args.device, args.small)


if __name__ == "__main__":
    main()
