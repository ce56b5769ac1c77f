#!/usr/bin/python3
"""Rows of float32 from .npy to a trainer on the same host that reads every byte: in the order of the file and shuffled, beside a
copy of the same matrix in memory, alternating in one run, files warm in the page cache.

usage: bench_tables_stream.py [--rounds N] [--rows N] [--columns N] [--batch N] [--workers N]      (BUILD as in the other benches)
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
TARGET = 1.0  # GB/s
PIPELINE = """\
version: 1
name: rows
seed: 1
source: {{format: npy, path: {path}}}
ops: []
output: {{batch_size: {batch}, shuffle: {shuffle}, drop_last: true, dtype: float32}}
"""


def copy_rate(matrix):
    """GB/s of numpy's copy of it into memory that is there already."""
    to = numpy.empty_like(matrix)
    to[:] = 0
    start = time.perf_counter()
    to[:] = matrix
    return matrix.nbytes / (time.perf_counter() - start) / 1e9


def stream_rate(work, data, shuffle, args):
    """GB/s of an epoch: the second one, so that starting is not in it."""
    file = work / "p.yaml"
    file.write_text(PIPELINE.format(path=data, batch=args.batch, shuffle=str(shuffle).lower()))
    server = subprocess.Popen([BUILD / "shardmill", "serve", file, "--bind", f"ipc://{work}/b", "--state", work / f"state-{shuffle}", "--workers",
                               str(args.workers)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        words = server.stdout.readline().split()
        assert words[:1] == ["serving"], words
        def read(epochs):
            done = subprocess.run([BUILD / "shardmill", "read", "rows", "--broker", words[3], "--epochs", str(epochs), "--json"],
                                  check=True, capture_output=True, text=True)
            return json.loads(done.stdout)
        read(1)
        found = read(3)
        return found["bytes"] / found["seconds"] / 1e9
    finally:
        server.terminate()
        server.wait()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rows", type=int, default=400000)
    options.add_argument("--columns", type=int, default=256)
    options.add_argument("--batch", type=int, default=8192)
    options.add_argument("--workers", type=int, default=2)
    args = options.parse_args()
    rates = {"copy in memory": [], "in order": [], "shuffled": []}
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as folder:
        work = pathlib.Path(folder)
        matrix = numpy.random.default_rng(1).random((args.rows, args.columns), numpy.float32)
        numpy.save(work / "x.npy", matrix)
        for _ in range(args.rounds):
            rates["copy in memory"].append(copy_rate(matrix))
            rates["in order"].append(stream_rate(work, work / "x.npy", False, args))
            rates["shuffled"].append(stream_rate(work, work / "x.npy", True, args))
    print(f"{args.rows} x {args.columns} float32 from .npy to a trainer, {args.workers} workers, batches of {args.batch}")
    for name, found in rates.items():
        wanted = "" if name == "copy in memory" else f"   target {TARGET} GB/s"
        print(f"  {name:<15} {statistics.median(found):6.2f} GB/s   ({min(found):.2f} to {max(found):.2f}){wanted}")
    return 0 if min(statistics.median(rates[name]) for name in ("in order", "shuffled")) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
