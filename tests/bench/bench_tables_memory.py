#!/usr/bin/python3
"""A fit over more rows than its processes may hold: StandardScaler and PCA(32) over some GB of float32 rows, each process limited to
512 MB of address space. Prints seconds and the largest peak of memory.

usage: bench_tables_memory.py [--gigabytes N] [--columns N] [--limit MB]      (BUILD as in the other benches)
"""
import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
PIPELINE = """\
version: 1
seed: 1
source: {{format: npy, path: {path}}}
ops:
  - StandardScaler
  - PCA: {{n_components: 32}}
output: {{batch_size: 1024}}
"""


def write_rows(path, rows, columns):
    """The same blocks again and again, so that writing does not take longer than the fit."""
    block = numpy.random.default_rng(1).random((10000, columns), numpy.float32)
    block[:, 1:] += block[:, :-1]
    out = numpy.lib.format.open_memmap(path, mode="w+", dtype=numpy.float32, shape=(rows, columns))
    for first in range(0, rows, len(block)):
        n = min(len(block), rows - first)
        out[first:first + n] = block[:n] * numpy.float32(1 + first % 7)
    out.flush()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gigabytes", type=float, default=4.2)
    options.add_argument("--columns", type=int, default=256)
    options.add_argument("--limit", type=int, default=512)
    args = options.parse_args()
    rows = int(args.gigabytes * 1e9 / 4 / args.columns)

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (args.limit << 20, args.limit << 20))

    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as folder:
        work = pathlib.Path(folder)
        write_rows(work / "x.npy", rows, args.columns)
        (work / "p.yaml").write_text(PIPELINE.format(path=work / "x.npy"))
        start = time.monotonic()
        done = subprocess.run([BUILD / "shardmill", "fit", work / "p.yaml", "--state", work / "state", "--workers", "1", "-q"], preexec_fn=limited)
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"StandardScaler + PCA(32) fitted on {rows} x {args.columns} float32, {args.gigabytes:.1f} GB, {args.limit} MB a process: "
          f"{seconds:.1f} s, peak {peak:.0f} MiB, exit {done.returncode}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
