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
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
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
    options.add_argument("--write", help=argparse.SUPPRESS)  # in a process of its own, whose memory is not measured
    args = options.parse_args()
    rows = int(args.gigabytes * 1e9 / 4 / args.columns)

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (args.limit << 20, args.limit << 20))

    if args.write is not None:
        write_rows(args.write, rows, args.columns)
        return 0
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as folder:
        work = pathlib.Path(folder)
        subprocess.run([sys.executable, __file__, "--gigabytes", str(args.gigabytes), "--columns", str(args.columns), "--write", work / "x.npy"],
                       check=True)
        (work / "p.yaml").write_text(PIPELINE.format(path=work / "x.npy"))
        start = time.monotonic()
        fit = ["fit", work / "p.yaml", "--state", work / "state", "--workers", "1", "-q"]
        done = subprocess.run([sys.executable, "-c", MEASURE, BUILD / "shardmill", *fit], preexec_fn=limited, capture_output=True, text=True)
        seconds = time.monotonic() - start
    print(f"StandardScaler + PCA(32) fitted on {rows} x {args.columns} float32, {args.gigabytes:.1f} GB, {args.limit} MB a process: "
          f"{seconds:.1f} s, peak {int(done.stdout) / 1024:.0f} MiB, exit {done.returncode}{done.stderr}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
