"""SGLang's own Rust bench client against a server: a peer's reading of our answers.

sglang_client.py [--wheels FOLDER] -- ARGS…    ARGS as `python -m sglang.benchmark.rust_client`

The client is one compiled module inside the sglang wheel (CPython 3.11, 39 MB); it is taken out of
the wheel, nothing else of sglang is installed.
"""

import argparse
import importlib.util
import pathlib
import subprocess
import sys
import zipfile

WHEEL = "sglang==0.5.23"
MODULE = "sglang/srt/rust_extensions/_bench.cpython-311-x86_64-linux-gnu.so"


def client(wheels):
    """The compiled module, downloaded on first use."""
    folder = pathlib.Path(wheels)
    file = folder / "sglang_bench" / "_bench.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
        subprocess.run([*pip, "-d", str(folder)], check=True)
        file.parent.mkdir(exist_ok=True)
        (wheel,) = folder.glob("sglang-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            file.write_bytes(archive.read(MODULE))
    spec = importlib.util.spec_from_file_location("_bench", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", default="target/wheels")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    rest = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
    client(options.wheels).run_argv(["sglang-bench", *rest])
