#!/usr/bin/python3
"""CSV to a float32 matrix: the csv source (index built, opened, all rows read) beside pandas' C reader (read_csv, to_numpy),
alternating in one run, one core each, files warm in the page cache.

usage: bench_tables_csv.py [--rounds N] [--rows N]      (BUILD as in the other benches; pandas out of BUILD/peers, which
`make bench-peers` makes, or of this Python)
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
PANDAS = """
import json, sys, time
import numpy, pandas
start = time.perf_counter()
a = pandas.read_csv(sys.argv[1], engine="c").to_numpy(dtype=numpy.float32)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "rows": a.shape[0], "columns": a.shape[1], "sum": float(a.astype(float).sum()),
                  "version": pandas.__version__}))
"""
TABLES = {
    "7 digits": (100, lambda rng: f"{rng.gauss(0, 1):.7g}"),
    "17 digits": (100, lambda rng: repr(rng.gauss(0, 1))),
    "whole numbers": (20, lambda rng: str(rng.randrange(100000))),
}
TARGET = 2.0


def write_table(path, rows, columns, cell):
    """Rows repeat after a while, so that writing does not take longer than reading."""
    rng = random.Random(1)
    lines = [",".join(cell(rng) for _ in range(columns)) + "\n" for _ in range(min(rows, 2000))]
    with open(path, "w") as f:
        f.write(",".join(f"c{i}" for i in range(columns)) + "\n")
        for i in range(rows):
            f.write(lines[i % len(lines)])


def python_with_pandas():
    for python in (BUILD / "peers" / "bin" / "python", sys.executable):
        if subprocess.run([python, "-c", "import pandas"], capture_output=True).returncode == 0:
            return python
    sys.exit("no pandas (hint: make bench-peers)")


def run(command):
    def one_core():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, preexec_fn=one_core).stdout)


def measure(python, name, work, args):
    columns, cell = TABLES[name]
    table = f"{work}/t.csv"
    write_table(table, args.rows, columns, cell)
    ours, theirs = [], []
    for _ in range(args.rounds):
        a = run([BUILD / "tools" / "csv_matrix", table, f"{work}/index"])
        b = run([python, "-c", PANDAS, table])
        assert (a["rows"], a["columns"]) == (b["rows"], b["columns"]) == (args.rows, columns)
        assert abs(a["sum"] - b["sum"]) <= 1e-6 * max(1, abs(b["sum"])), (a, b)
        ours.append(a["build"] + a["open"] + a["read"])
        theirs.append(b["seconds"])
    megabytes = os.path.getsize(table) / 1e6
    ratios = sorted(t / o for o, t in zip(ours, theirs))
    ratio = statistics.median(ratios)
    print(f"{name:14} {megabytes:6.0f} MB   shardmill {statistics.median(ours):.3f} s   "
          f"pandas {b['version']} {statistics.median(theirs):.3f} s   ratio {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return ratio


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=100000)
    args = parser.parse_args()
    python = python_with_pandas()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # not the disk's speed is asked for
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-", dir=memory) as work:
        ratios = [measure(python, name, work, args) for name in TABLES]
    print(f"CSV to float32, the least of them: ratio {min(ratios):.2f} (wanted: {TARGET})")
    return 0 if min(ratios) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
