#!/usr/bin/python3
"""SMOTE on 100,000 x 256 float32 with 5 % in the smaller class: neighbours learned and an epoch's rows made from an index, block
by block as leases make them, beside imbalanced-learn's fit_resample of the same numbers into one array in memory, alternating in
one run, one core each, in processor time. Then what a rebalanced position costs in epochs of 10^5 and of 10^9.

usage: bench_tables_smote.py [--rounds N] [--rows N] [--columns N]      (BUILD as in the other benches; imbalanced-learn out of
BUILD/peers, which `make bench-peers` makes, or of this Python)
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
TARGET = 5.0
IMBLEARN = """
import json, sys, time
import imblearn, numpy
X, y = numpy.load(sys.argv[1]), numpy.load(sys.argv[2])
start = time.process_time()
made, labels = imblearn.over_sampling.SMOTE(random_state=1).fit_resample(X, y)
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "rows": len(made), "version": imblearn.__version__, "dtype": str(made.dtype)}))
"""
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def python_with_imblearn():
    for python in (BUILD / "peers" / "bin" / "python", sys.executable):
        if os.access(python, os.X_OK) and subprocess.run([python, "-c", "import imblearn"], capture_output=True).returncode == 0:
            return python
    sys.exit("no imbalanced-learn (hint: make bench-peers)")


def run(*command):
    def one_core():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, preexec_fn=one_core, env=ONE_THREAD).stdout)


def write_table(work, rows, columns):
    rng = numpy.random.default_rng(1)
    y = (rng.random(rows) < 0.05).astype(numpy.int64)
    X = rng.normal(size=(rows, columns)).astype(numpy.float32) @ rng.normal(size=(columns, columns)).astype(numpy.float32) / 16
    X = numpy.round((X + y[:, None]) * 10000).astype(numpy.float32)  # whole numbers, so that the CSV is soon written
    numpy.save(work / "x.npy", X)
    numpy.save(work / "y.npy", y)
    with open(work / "t.csv", "w") as f:
        f.write(",".join(f"x{i}" for i in range(columns)) + ",label\n")
        for row, label in zip(X.astype(numpy.int64), y):
            f.write(",".join(map(str, row.tolist())) + f",{label}\n")
    (work / "p.yaml").write_text("version: 1\nsource: {format: csv, path: t.csv, label: label}\nrebalance: {SMOTE: {}}\n")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--rows", type=int, default=100000)
    options.add_argument("--columns", type=int, default=256)
    args = options.parse_args()
    python, tool = python_with_imblearn(), BUILD / "tools" / "smote_run"
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as folder:
        work = pathlib.Path(folder)
        write_table(work, args.rows, args.columns)
        ratios, ours, theirs = [], [], []
        for _ in range(args.rounds):
            ours.append(run(tool, work / "p.yaml", work))
            theirs.append(run(python, "-c", IMBLEARN, work / "x.npy", work / "y.npy"))
            ratios.append(theirs[-1]["seconds"] / (ours[-1]["fit"] + ours[-1]["make"]))
        assert ours[0]["rows"] == theirs[0]["rows"]
        assert len({o["sum"] for o in ours}) == 1, "the rows differ from run to run"
    fit, make = (statistics.median(o[key] for o in ours) for key in ("fit", "make"))
    ratio = statistics.median(ratios)
    print(f"SMOTE, {args.rows} x {args.columns} float32, 5 % to {ours[0]['rows']} rows: {fit:.2f} s neighbours + {make:.2f} s rows,"
          f" imbalanced-learn {theirs[0]['version']} {statistics.median(t['seconds'] for t in theirs):.2f} s:"
          f" {ratio:.2f} x ({min(ratios):.2f} to {max(ratios):.2f}; target {TARGET} x)")
    costs = {n: statistics.median(run(tool, "plan", str(n))["nanoseconds"] for _ in range(args.rounds)) for n in (10**5, 10**9)}
    print(f"a rebalanced position: {costs[10**5]:.0f} ns of 10^5, {costs[10**9]:.0f} ns of 10^9")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
