"""llama.cpp's side: build its tools, make the other weight types, run them once."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

PACKAGE = "llama-cpp-python==0.3.36"
TOOLS = ["llama-bench", "llama-batched-bench", "llama-completion", "llama-quantize", "llama-server"]
CMAKE = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF",
         "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
         "-DBUILD_SHARED_LIBS=OFF"]


def build(work):
    """Builds the tools from the source package, once; the folder they are in."""
    source, out = work / "source", work / "build"
    tools = out / "bin"
    if all((tools / tool).exists() for tool in TOOLS):
        return tools
    source.mkdir(parents=True, exist_ok=True)
    if not list(source.glob("*/vendor/llama.cpp")):
        # Only this one as source: what pip needs to look at it (CMake) would take half an hour.
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
               PACKAGE.split("==")[0], "--dest", str(source), PACKAGE]
        subprocess.run(pip, check=True)
        with tarfile.open(next(source.glob("*.tar.gz"))) as package:
            package.extractall(source, filter="data")
    tree = next(source.glob("*/vendor/llama.cpp"))
    subprocess.run(["cmake", "-S", tree, "-B", out, *CMAKE], check=True)
    subprocess.run(["cmake", "--build", out, "-j", str(os.cpu_count()), "--target", *TOOLS],
                   check=True)
    return tools


def typed(tools, model, types, work):
    """`{type: file}`: the model itself for its own type, the others made from it, once."""
    files = {}
    for name in types:
        if f".{name}." in model.name.lower():
            files[name] = model
            continue
        files[name] = work / f"{model.name.split('.')[0]}.{name}.gguf"
        if not files[name].exists():
            part = files[name].with_suffix(".part")
            command = [tools / "llama-quantize", "--allow-requantize", model, part, name.upper()]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            part.rename(files[name])
    return files


def version(tools):
    """What `llama-bench` says it is built from."""
    out = subprocess.run([tools / "llama-bench", "--version"], capture_output=True, text=True)
    lines = [line for line in (out.stdout + out.stderr).splitlines() if "version" in line]
    return f"{PACKAGE}, {lines[0].strip() if lines else 'version not told'}"


def bench_command(tools, file, threads, prompts, generated, repeat):
    """llama-bench: prompt processing of each length, or generation of `generated` tokens."""
    lengths = ",".join(map(str, prompts)) or "0"
    return [tools / "llama-bench", "-m", file, "-t", threads, "-p", lengths, "-n", generated,
            "-r", repeat, "-ngl", 0, "-o", "json"]


def bench_rates(text):
    """`{(prompt, generated): tokens/s}`, the median of a test's repetitions."""
    rates = {}
    for test in json.loads(text):
        samples = sorted(test["samples_ts"])
        rates[(test["n_prompt"], test["n_gen"])] = samples[len(samples) // 2]
    return rates


def batched_command(tools, file, threads, batches, prompt, generated):
    """llama-batched-bench: `prompt` tokens in, `generated` out, each batch size in turn."""
    context = max(batches) * (prompt + generated)
    return [tools / "llama-batched-bench", "-m", file, "-t", threads, "-tb", threads, "-ngl", 0,
            "-c", context, "-npp", prompt, "-ntg", generated, "-npl", ",".join(map(str, batches)),
            "--output-format", "jsonl"]


def batched_rates(text):
    """`{batch: tokens/s while generating}`."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {row["pl"]: row["speed_tg"] for row in rows}


def complete_command(tools, file, threads, prompt, tokens, context):
    """llama-completion, greedy, without its warm-up run: the fastest it can answer a shell."""
    return [tools / "llama-completion", "-m", file, "-t", threads, "-ngl", 0, "-c", context, "-n",
            tokens, "-p", prompt, "--temp", 0, "-no-cnv", "--no-warmup", "--no-display-prompt"]


def path(text):
    return pathlib.Path(text).expanduser().resolve()
