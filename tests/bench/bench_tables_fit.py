#!/usr/bin/python3
"""Row ops beside scikit-learn, one core each, in one run: StandardScaler and PCA learned from and run over float32 rows, and
KMeans. scikit-learn is the newest, of `make bench-peers`; its fastest solver (covariance_eigh) is taken. Both are measured
in processor time, without reading files, in turns; the median of the rounds counts.

usage: bench_tables_fit.py [--rows N] [--columns N] [--rounds N] [--clusters N]      (BUILD as in the tests)
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("BUILD", pathlib.Path(__file__).resolve().parents[2] / "build")).resolve()
PEERS = pathlib.Path(os.environ.get("PEERS", BUILD / "peers")) / "bin" / "python"
COMPONENTS = 32
STEPS = 50  # of KMeans at most, so that neither side is lucky with its start
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
MAKE = """
import sys, numpy as np
path, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
groups = rng.normal(size=(64, columns)) * 3
x = groups[rng.integers(64, size=rows)] + rng.normal(size=(rows, 40)) @ rng.normal(size=(40, columns))
np.save(path, (x * rng.uniform(0.1, 9, columns) + rng.normal(size=columns) * 5).astype(np.float32))
"""
PEER = """
import json, sys, time, numpy as np, sklearn
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
X, clusters = np.load(sys.argv[1]), int(sys.argv[2])
now = time.process_time
start = now()
scaler = StandardScaler().fit(X)
Z = scaler.transform(X)
pca = PCA(%d, svd_solver="covariance_eigh").fit(Z)
fitted = now()
Y = pca.transform(scaler.transform(X))
done = now()
kmeans = KMeans(clusters, n_init=1, max_iter=%d, random_state=0).fit(Z) if clusters else None
print(json.dumps({"version": sklearn.__version__, "fit": fitted - start, "transform": done - fitted, "kmeans": now() - done,
                  "variance": float(pca.explained_variance_.sum()), "inertia": float(kmeans.inertia_) if clusters else 0,
                  "steps": int(kmeans.n_iter_) if clusters else 0}))
""" % (COMPONENTS, STEPS)


def ours(work, ops, data):
    """Seconds of each fit and of running the chain; what the last op has learned."""
    pipeline = work / "p.yaml"
    lines = "".join(f"  - {op}\n" for op in ops)
    pipeline.write_text(f"version: 1\nseed: 1\nsource: {{format: npy, path: x}}\nops:\n{lines}")
    done = subprocess.run([str(BUILD / "tools" / "rows_run"), str(pipeline), str(data), str(work / "out.npy"),
                           str(work / "artifacts")], check=True, capture_output=True, text=True, env=ONE_THREAD)
    fits = [(float(fit), float(run)) for fit, run in re.findall(r"seconds fit \S+ (\S+) (\S+)", done.stderr)]
    learned = work / "artifacts" / f"{done.stdout.split()[-1]}.npz"
    return fits, float(re.search(r"seconds transform (\S+)", done.stderr)[1]), learned


def number(learned, name):
    """The sum of an array of what was learned."""
    code = "import sys, numpy as np; print(float(np.load(sys.argv[1])[sys.argv[2]].sum()))"
    return float(subprocess.run([str(PEERS), "-c", code, str(learned), name], check=True, capture_output=True, text=True).stdout)


def line(what, mine, theirs, wanted):
    mine, theirs = statistics.median(mine), statistics.median(theirs)
    print(f"{what:<34} {mine:8.3f} s   scikit-learn {theirs:8.3f} s   ratio {theirs / mine:5.2f}   wanted: {wanted} or more")
    return theirs / mine >= wanted


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100000)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clusters", type=int, default=64, help="0: no KMeans")
    args = parser.parse_args()
    if not PEERS.exists():
        raise SystemExit(f"no scikit-learn in {PEERS} (hint: make bench-peers)")
    work = pathlib.Path(tempfile.mkdtemp(prefix="shardmill-bench-"))
    try:
        data = work / "x.npy"
        subprocess.run([str(PEERS), "-c", MAKE, str(data), str(args.rows), str(args.columns)], check=True)
        mine, theirs = {"fit": [], "transform": [], "kmeans": []}, {"fit": [], "transform": [], "kmeans": []}
        for _ in range(args.rounds):
            fits, transform, learned = ours(work, ["StandardScaler", f"PCA: {{n_components: {COMPONENTS}}}"], data)
            variance = number(learned, "explained_variance_")
            mine["fit"].append(fits[0][0] + fits[0][1] + fits[1][0])
            mine["transform"].append(transform)
            if args.clusters:
                kmeans = f"KMeans: {{n_clusters: {args.clusters}, n_init: 1, max_iter: {STEPS}}}"
                fits, _, learned = ours(work, ["StandardScaler", kmeans], data)
                mine["kmeans"].append(fits[1][0])
                inertia, steps = number(learned, "inertia_"), number(learned, "n_iter_")
            peer = json.loads(subprocess.run([str(PEERS), "-c", PEER, str(data), str(args.clusters)], check=True,
                                             capture_output=True, text=True, env=ONE_THREAD).stdout)
            for name in theirs:
                theirs[name].append(peer[name])
        print(f"{args.rows} x {args.columns} float32, one core, scikit-learn {peer['version']}, median of {args.rounds}")
        good = [line(f"StandardScaler + PCA({COMPONENTS}), fit", mine["fit"], theirs["fit"], 1.5),
                line(f"StandardScaler + PCA({COMPONENTS}), transform", mine["transform"], theirs["transform"], 1.5)]
        print(f"{'variance that is kept':<34} {variance:8.3f}     scikit-learn {peer['variance']:8.3f}")
        if args.clusters:
            good.append(line(f"KMeans({args.clusters}), fit", mine["kmeans"], theirs["kmeans"], 1.0))
            print(f"{'inertia':<34} {inertia:8.4g}     scikit-learn {peer['inertia']:8.4g}")
            print(f"{'steps':<34} {steps:8.0f}     scikit-learn {peer['steps']:8d}")
        if abs(variance / peer["variance"] - 1) > 1e-3:
            raise SystemExit("the components are not the same")
        if not all(good):
            sys.exit("a ratio is below what is wanted (hint: is the machine quiet?)")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
