"""Fits: what is learned depends on the training rows alone, and the lock file holds commands to it."""
import json
import os
import resource
import signal
import subprocess
import time

import numpy as np
import pytest

from conftest import SHARDMILL, Started, digests, good, pictures, run, wait_until

COLUMNS = 24


def table(folder, rows, seed=0, name="x.npy"):
    """A table of correlated columns and two classes as npy files."""
    chance = np.random.default_rng(seed)
    x = (chance.normal(size=(rows, COLUMNS)) @ chance.normal(size=(COLUMNS, COLUMNS)) + 3).astype(np.float32)
    np.save(folder / name, x)
    np.save(folder / "y.npy", (x[:, 0] > 3).astype(np.int64))
    return x


def pipeline(folder, ops, more="", source="{format: npy, path: x.npy, label: y.npy}", name="t.yaml"):
    path = folder / name
    path.write_text(f"version: 1\nname: t\nseed: 3\nsource: {source}\nops: [{ops}]\n{more}output: {{batch_size: 16}}\n")
    return path


def fit(path, folder, *more, **kw):
    return json.loads(good("fit", path, "--state", folder / "state", "--json", "--quiet", *more, **kw).stdout)


def learned(folder, fits, place):
    sha = next(f["sha256"] for f in fits["fits"] if f["place"] == place)
    return dict(np.load(folder / "state" / "artifacts" / f"{sha}.npz"))


RANDOMIZED = "StandardScaler, PCA: {n_components: 4, svd_solver: randomized}"


def test_the_same_artifacts_and_lock_for_one_two_and_four_workers(tmp_path):
    table(tmp_path, 120_000)
    path = pipeline(tmp_path, RANDOMIZED, "split: {val: 0.1}\n")
    seen = set()
    for workers, spread in [(1, 1 << 40), (2, 1), (4, 1)]:
        fits = fit(path, tmp_path, "--workers", workers, "--spread", spread)
        assert all(f["fitted"] for f in fits["fits"])
        seen.add((path.with_suffix(".lock").read_bytes(), tuple(f["sha256"] for f in fits["fits"])))
        left = [p.name for p in (tmp_path / "state").iterdir() if not p.name.startswith("index-")]
        assert left == ["artifacts"], "a fit leaves nothing but what was learned"
        for file in (tmp_path / "state" / "artifacts").iterdir():
            file.unlink()
    assert len(seen) == 1


def test_workers_killed_amid_the_rounds_of_a_fit_change_no_byte(tmp_path):
    table(tmp_path, 200_000)
    path = pipeline(tmp_path, RANDOMIZED)
    expected = fit(path, tmp_path)["fits"]
    for file in (tmp_path / "state" / "artifacts").iterdir():
        file.unlink()
    job = Started("fit", path, "--state", tmp_path / "state", "--workers", 2, "--spread", 1, "--json")
    try:
        killed = set()

        def kill_in_a_new_round():
            for folder in (tmp_path / "state").glob("fit/*/round-*"):
                workers = job.family("worker")
                if (folder.parent.name, folder.name) not in killed and workers:
                    os.kill(workers[0], signal.SIGKILL)
                    killed.add((folder.parent.name, folder.name))
            return len(killed) >= 3 or job.process.poll() is not None
        wait_until(kill_in_a_new_round, what="three rounds")
        out, errors = job.process.communicate(timeout=120)
    finally:
        job.end()
    assert job.process.returncode == 0, errors
    assert len(killed) >= 3, "the fit was over before it was disturbed"
    assert [f["sha256"] for f in json.loads(out)["fits"]] == [f["sha256"] for f in expected]


SMOTE = "rebalance: {SMOTE: {k_neighbors: 5}}\n"


def rare(folder, rows, share, seed=4):
    """Classes 0, 1 and 2, of which the second is most of what neighbours are searched in, and the last is small."""
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(rows, COLUMNS)).astype(np.float32)
    x[: rows // 50] = np.round(x[: rows // 50])
    y = np.zeros(rows, np.int64)
    y[: int(rows * share)] = 1
    y[-50:] = 2
    order = chance.permutation(rows)
    np.save(folder / "x.npy", x[order])
    np.save(folder / "y.npy", y[order])


@pytest.mark.parametrize("method", ["SMOTE", "SMOTENC"])
def test_neighbours_are_the_same_from_one_two_and_four_workers(tmp_path, method):
    rare(tmp_path, 30_000, 0.3)
    source = "{format: npy, path: x.npy, label: y.npy}"
    if method == "SMOTENC":
        x, y = np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy")
        lines = ["a,b,c,label"] + [f"{a:.4f},c{abs(int(2 * b))},{c:.3f},{l}" for (a, b, c), l in zip(x[:, :3], y)]
        (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
        source = "{format: csv, path: x.csv, label: label}"
    path = pipeline(tmp_path, "", f"split: {{val: 0.1}}\nrebalance: {{{method}: {{}}}}\n", source)
    seen = set()
    for workers, spread in [(1, 1), (2, 1), (4, 1), (4, 1 << 40)]:
        fits = fit(path, tmp_path, "--workers", workers, "--spread", spread)
        assert [f["fitted"] for f in fits["fits"]] == [True]
        seen.add((path.with_suffix(".lock").read_bytes(), fits["fits"][0]["sha256"]))
        told = json.loads(good("explain", path, "--state", tmp_path / "state", "--json").stdout)["dataset"]["neighbours"]
        assert told["artifact_bytes"] == fits["fits"][0]["bytes"] and told["k"] == 5 and told["ranges"] > 4
        assert told["rows"] == sum(learned(tmp_path, fits, 0)["neighbours"].shape[:1]) and 0 < told["memory_bytes"] <= 256 << 20
        for file in (tmp_path / "state" / "artifacts").iterdir():
            file.unlink()
        assert not (tmp_path / "state" / "fit").exists()
    assert len(seen) == 1


def test_workers_killed_amid_a_search_for_neighbours_change_no_byte(tmp_path):
    rare(tmp_path, 160_000, 0.4)
    path = pipeline(tmp_path, "", SMOTE)
    expected = fit(path, tmp_path, "--workers", 1)["fits"]
    for file in (tmp_path / "state" / "artifacts").iterdir():
        file.unlink()
    job = Started("fit", path, "--state", tmp_path / "state", "--workers", 2, "--spread", 1, "--json")
    try:
        for enough in (1, 6, 12):
            wait_until(lambda: len(list((tmp_path / "state").glob("fit/*/round-0/*.partial"))) >= enough
                       or job.process.poll() is not None, what="partials")
            wait_until(lambda: job.family("worker") or job.process.poll() is not None, what="workers")
            assert job.process.poll() is None, "the search was over before it was disturbed"
            os.kill(job.family("worker")[0], signal.SIGKILL)
        out, errors = job.process.communicate(timeout=120)
    finally:
        job.end()
    assert job.process.returncode == 0, errors
    assert [f["sha256"] for f in json.loads(out)["fits"]] == [f["sha256"] for f in expected]


HIDDEN = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']
hides = pytest.mark.skipif(subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
                           reason="no mount namespaces here")


@hides
@pytest.mark.parametrize("disturbed", [False, True])
@pytest.mark.parametrize("what", ["rounds", "neighbours"])
def test_a_fit_by_workers_that_see_nothing_of_its_folder_learns_the_same(tmp_path, start, what, disturbed):
    """States, partials, index and artifacts go through the broker, also through one that dies amid the rounds."""
    if what == "rounds":
        table(tmp_path, 200_000)
        path = pipeline(tmp_path, "StandardScaler, PCA: {n_components: 6}, KMeans: {n_clusters: 5, n_init: 1, max_iter: 12}")
    else:
        rare(tmp_path, 160_000, 0.4)
        path = pipeline(tmp_path, "StandardScaler", SMOTE)
    expected = [f["sha256"] for f in fit(path, tmp_path)["fits"]]
    endpoint, private = f"ipc://{tmp_path}/b", tmp_path / "private"
    private.mkdir()
    broker = start("broker", "--bind", endpoint, "--state", tmp_path / "broker", stderr=subprocess.DEVNULL)
    workers = [start("worker", "--broker", endpoint, stderr=subprocess.DEVNULL) for _ in range(2)]
    job = subprocess.Popen([*HIDDEN, private, SHARDMILL, "fit", path, "--broker", endpoint, "--state", private, "--spread", "1",
                            "--json", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        files = tmp_path / "broker" / "files"
        for enough in ((4, 40, 90) if what == "rounds" else (4, 12, 20)) if disturbed else ():
            wait_until(lambda: files.is_dir() and len(list(files.iterdir())) >= enough or job.poll() is not None, what="files")
            assert job.poll() is None, "the fit was over before it was disturbed"
            broker.end()
            workers.pop().end()
            broker = start("broker", "--bind", endpoint, "--state", tmp_path / "broker", stderr=subprocess.DEVNULL)
            workers.append(start("worker", "--broker", endpoint, stderr=subprocess.DEVNULL))
        out, errors = job.communicate(timeout=120)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 0, errors
    assert [f["sha256"] for f in json.loads(out)["fits"]] == expected
    assert list(private.iterdir()) == [] and not (tmp_path / "fit").exists()


@pytest.mark.parametrize("ops,more,args", [
    ("KMeans: {n_clusters: 24, n_init: 500, tol: 0}", "", ["--workers", 1]),
    ("KMeans: {n_clusters: 24, n_init: 500, tol: 0}", "", ["--workers", 2, "--spread", 1]),
    ("StandardScaler", SMOTE, ["--workers", 1]),
    ("StandardScaler", SMOTE, ["--workers", 2, "--spread", 1]),
], ids=["here", "by workers", "neighbours", "neighbours by workers"])
def test_a_fit_ends_at_once_when_it_is_interrupted_and_leaves_nothing_half(tmp_path, start, ops, more, args):
    table(tmp_path, 150_000)
    path = pipeline(tmp_path, ops, more)
    job = start("fit", path, "--state", tmp_path / "state", *args)
    assert "fits '" in job.process.stderr.readline()
    time.sleep(0.3)
    began = time.monotonic()
    job.process.send_signal(signal.SIGINT)
    _, errors = job.process.communicate(timeout=20)
    assert job.process.returncode in (1, -signal.SIGINT) and "stopped on request" in errors and "Traceback" not in errors
    assert time.monotonic() - began < 5
    assert not path.with_suffix(".lock").exists() and list((tmp_path / "state" / "artifacts").iterdir()) == []
    wait_until(lambda: job.family() == [], what="the end of all its processes")


def test_a_second_run_fits_nothing_and_another_seed_or_parameter_fits_again(tmp_path):
    table(tmp_path, 2000)
    path = pipeline(tmp_path, "StandardScaler, PCA: {n_components: 4}")
    assert [f["fitted"] for f in fit(path, tmp_path)["fits"]] == [True, True]
    assert [f["fitted"] for f in fit(path, tmp_path)["fits"]] == [False, False]
    path.write_text(path.read_text().replace("batch_size: 16", "batch_size: 32"))
    assert [f["fitted"] for f in fit(path, tmp_path)["fits"]] == [False, False], "a batch is no matter of fits"
    path.write_text(path.read_text().replace("n_components: 4", "n_components: 5"))
    assert [f["fitted"] for f in fit(path, tmp_path)["fits"]] == [False, True]
    assert [f["fitted"] for f in fit(path, tmp_path, "--seed", 4)["fits"]] == [True, True]


def test_an_artifact_that_was_damaged_is_made_again(tmp_path):
    table(tmp_path, 2000)
    path = pipeline(tmp_path, "StandardScaler")
    sha = fit(path, tmp_path)["fits"][0]["sha256"]
    file = tmp_path / "state" / "artifacts" / f"{sha}.npz"
    file.write_bytes(file.read_bytes()[:-40])
    again = fit(path, tmp_path)["fits"][0]
    assert again["fitted"] and again["sha256"] == sha


def csv(folder, x, labels):
    lines = ["a,b,c,label"] + [",".join(f"{v:.5f}" for v in row) + f",{y}" for row, y in zip(x, labels)]
    (folder / "x.csv").write_text("\n".join(lines) + "\n")


SPLIT = "split: {val: 0.25}\n"
CSV = "{format: csv, path: x.csv, label: label, float64: true}"


def test_only_training_rows_are_learned_from(tmp_path):
    """Changing one row after the other changes what is learned exactly for the rows of the training part."""
    chance = np.random.default_rng(1)
    x, labels = chance.normal(size=(24, 3)), ["no", "yes"] * 12
    csv(tmp_path, x, labels)
    path = pipeline(tmp_path, "StandardScaler", SPLIT, source=CSV)
    before = fit(path, tmp_path)
    moved = []
    for row in range(24):
        y = x.copy()
        y[row] += 100
        csv(tmp_path, y, labels)
        moved.append(fit(path, tmp_path)["fits"][0]["sha256"] != before["fits"][0]["sha256"])
    assert sum(moved) == 18, "a quarter is held out"
    mean = learned(tmp_path, before, 0)["mean_"]
    assert np.allclose(mean, np.round(x, 5)[moved].mean(0), atol=1e-12)


def test_the_life_of_a_lock_file(tmp_path):
    x = table(tmp_path, 1000)
    path = pipeline(tmp_path, "StandardScaler, PCA: {n_components: 4}", "split: {val: 0.1}\n")
    lock = path.with_suffix(".lock")

    missing = run("check", "--locked", path)
    assert missing.returncode == 1 and "t.lock" in missing.stderr and "shardmill fit" in missing.stderr

    fit(path, tmp_path)
    good("check", "--locked", path)
    held = json.loads(lock.read_text())
    assert held["dataset"]["samples"] == 1000 and held["dataset"]["training_samples"] == 900
    assert held["pipeline"]["ops"][1]["PCA"]["n_components"] == 4 and "OpenBLAS" in held["fingerprint"]
    assert [a["op"] for a in held["artifacts"]] == ["StandardScaler", "PCA"]
    assert str(tmp_path) not in lock.read_text(), "a lock file is the same in every checkout"

    text = path.read_text()
    path.write_text(text.replace("n_components: 4", "n_components: 5"))
    stale = run("check", "--locked", path)
    assert stale.returncode == 1 and "ops[1].PCA.n_components is 5, was 4" in stale.stderr
    path.write_text(text.replace("batch_size: 16", "batch_size: 8"))
    assert "output.batch_size is 8, was 16" in run("check", "--locked", path).stderr
    path.write_text(text)

    np.save(tmp_path / "x.npy", x[:, ::-1])
    stale = run("check", "--locked", path)
    assert stale.returncode == 1 and "dataset" in stale.stderr
    np.save(tmp_path / "x.npy", x)
    good("check", "--locked", path)

    held["fingerprint"] = "shardmill 0; OpenBLAS 0.0"
    lock.write_text(json.dumps(held))
    stale = run("check", "--locked", path)
    assert stale.returncode == 1 and "OpenBLAS 0.0" in stale.stderr
    lock.write_text("{")
    assert "no lock file" in run("check", "--locked", path).stderr


@pytest.mark.parametrize("ops,place,words", [
    ("StandardScaler, PCA: {n_components: 40}", 1, ["'PCA'"]),
    ("PCA: {n_components: 20}", 0, ["'PCA'", "20"]),
])
def test_what_cannot_be_learned_is_one_sentence_with_the_line_of_its_op(tmp_path, ops, place, words):
    table(tmp_path, 10)
    path = pipeline(tmp_path, ops)
    failed = run("fit", path, "--state", tmp_path / "state")
    assert failed.returncode in (1, 2)
    last = failed.stderr.strip().splitlines()[-1]
    assert "line 5, column" in last and all(w in last for w in words), last
    assert not path.with_suffix(".lock").exists()
    assert not list((tmp_path / "state").rglob("*.npz")) or place == 1


def test_an_all_missing_column_is_refused_by_name(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,label\n1,,no\n2,,yes\n3,,no\n4,,yes\n")
    path = pipeline(tmp_path, "StandardScaler: {columns: [b]}", source=CSV)
    failed = run("fit", path, "--state", tmp_path / "state")
    assert failed.returncode in (1, 2) and "'b'" in failed.stderr and "line 5" in failed.stderr


@pytest.mark.parametrize("ops,words", [
    ("Resize: {size: [8, 8]}, Grayscale, Flatten, StandardScaler, PCA: {n_components: 60}", "'PCA': n_components is 60"),
    ("Resize: {size: [8, 8]}, Grayscale, Flatten, StandardScaler, SelectColumns: {columns: [p64]}", "'SelectColumns': no column 'p64'"),
    ("Resize: {size: [128, 128]}, Flatten, StandardScaler, PCA", "'PCA': the covariance of 49152 columns takes 19327352832 bytes"),
    ("Resize: {size: [128, 128]}, Flatten, PCA: {n_components: 0.9}", "(hint: n_components: 100, or another whole number"),
])
def test_what_can_be_refused_at_once_is_refused_before_any_image_is_decoded(tmp_path, ops, words):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(40):  # no pictures: decoding them would fail with another sentence
        (tmp_path / "photos" / "a" / f"{number:02}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    path = pipeline(tmp_path, ops, source="{format: folder, path: photos}")
    told = run("explain", path)
    for command in (("fit", path, "--state", tmp_path / "state"), ("expand", path, "-o", tmp_path / "out")):
        failed = run(*command)
        assert failed.returncode in (1, 2) and words in failed.stderr, failed.stderr
        assert "line 5, column" in failed.stderr or ":5:" in failed.stderr
        assert told.returncode != 0 and words in told.stderr, told.stderr
    assert not list(tmp_path.rglob("features*"))


def test_a_table_is_refused_before_its_first_fit(tmp_path):
    table(tmp_path, 50)
    path = pipeline(tmp_path, "StandardScaler, KMeans: {n_clusters: 51}")
    failed = run("fit", path, "--state", tmp_path / "state")
    assert failed.returncode in (1, 2) and "50 rows cannot make 51 clusters" in failed.stderr
    assert "fits 'StandardScaler'" not in failed.stderr and not list((tmp_path / "state").rglob("*.npz"))


def photos_of_two_classes(folder):
    for number, (_, photo) in enumerate(pictures()[:24]):
        to = folder / "photos" / "ab"[number % 2]
        to.mkdir(parents=True, exist_ok=True)
        (to / f"{number:02}{photo.suffix}").write_bytes(photo.read_bytes())


def test_images_are_learned_from_as_features_and_bad_ones_left_out(tmp_path):
    photos_of_two_classes(tmp_path)
    path = pipeline(tmp_path, "Resize: {size: [8, 8]}, Grayscale, Flatten, StandardScaler, PCA: {n_components: 3}",
                    source="{format: folder, path: photos}")
    whole = fit(path, tmp_path, "--workers", 2)
    assert learned(tmp_path, whole, 3)["mean_"].shape == (64,)
    assert set(learned(tmp_path, whole, 3)["n_samples_seen_"]) == {24}
    assert learned(tmp_path, whole, 4)["components_"].shape == (3, 64)
    assert not (tmp_path / "state" / "fit").exists(), "features are needed for a while only"
    (tmp_path / "photos" / "a" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    damaged = fit(path, tmp_path, "--reindex")
    assert [f["sha256"] for f in damaged["fits"]] == [f["sha256"] for f in whole["fits"]]


def test_a_fit_of_images_that_dies_before_their_features_are_whole_learns_the_same(tmp_path, start):
    """The shards, and in them the substitutes of bad images, are complete then; what tells them apart lies beside."""
    photos_of_two_classes(tmp_path)
    for name in ("a/bad.jpg", "b/00bad.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"\xff\xd8\xff\xe0 no image")
    path = pipeline(tmp_path, "Resize: {size: [64, 64]}, Grayscale, Flatten, StandardScaler",
                    source="{format: folder, path: photos}")
    whole = fit(path, tmp_path)
    for file in (tmp_path / "state" / "artifacts").iterdir():
        file.unlink()
    endpoint = f"ipc://{tmp_path}/broker.sock"
    start("broker", "--bind", endpoint, "--state", tmp_path / "broker", stderr=subprocess.DEVNULL)
    start("worker", "--broker", endpoint, stderr=subprocess.DEVNULL)
    # the workers write the shards; the limit lets the manifest be written, and not 24 rows of 16 KiB
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    died = run("fit", path, "--state", tmp_path / "state", "--broker", endpoint, preexec_fn=limit)
    assert died.returncode == -signal.SIGXFSZ, died
    left, = (tmp_path / "state" / "fit").iterdir()
    record = (left / "manifest.json").read_text()
    assert not (left / "features").exists()
    for samples in (0, 25):
        (left / "manifest.json").write_text(record.replace('"samples": 26, "bytes"', f'"samples": {samples}, "bytes"'))
        told = run("fit", path, "--state", tmp_path / "state")
        assert told.returncode in (1, 2) and "the plan has no shard" in told.stderr, told.stderr
    (left / "manifest.json").write_text(record)
    again = fit(path, tmp_path)
    assert set(learned(tmp_path, again, 3)["n_samples_seen_"]) == {24}
    assert [f["sha256"] for f in again["fits"]] == [f["sha256"] for f in whole["fits"]]
    assert not (tmp_path / "state" / "fit").exists()


def test_runs_keep_to_the_lock_and_name_what_differs(tmp_path):
    """expand fits by itself; a lock whose pipeline or artifact is another one ends it before a shard is made."""
    table(tmp_path, 400)
    path = pipeline(tmp_path, "StandardScaler, PCA: {n_components: 4}", "expand: {encode: npy}\n")
    free = tmp_path / "free"
    good("expand", path, "-o", free, "--workers", 1)
    fit(path, tmp_path)
    held = tmp_path / "held"
    good("expand", path, "-o", held, "--workers", 1)
    assert (free / "shard-000000.npy").read_bytes() == (held / "shard-000000.npy").read_bytes()

    text, lock = path.read_text(), path.with_suffix(".lock")
    path.write_text(text.replace("n_components: 4", "n_components: 3"))
    refused = run("expand", path, "-o", tmp_path / "other", "--workers", 1)
    assert refused.returncode == 1 and "ops[1].PCA.n_components is 3, was 4" in refused.stderr
    path.write_text(text)
    path.write_text(text.replace("encode: npy", "encode: csv"))
    refused = run("expand", path, "-o", tmp_path / "other", "--workers", 1)
    assert refused.returncode == 1 and "expand.encode is csv, was npy" in refused.stderr.replace('"', "")
    path.write_text(text)
    seeded = run("expand", path, "-o", tmp_path / "other", "--workers", 1, "--seed", 9)
    assert seeded.returncode == 1 and "seed is 9, was 3" in seeded.stderr
    changed = json.loads(lock.read_text())
    sha = changed["artifacts"][0]["sha256"]
    lock.write_text(lock.read_text().replace(sha, "0" * 64))
    refused = run("expand", path, "-o", tmp_path / "other", "--workers", 1)
    assert refused.returncode == 1 and sha[:12] in refused.stderr and "000000000000" in refused.stderr
    assert not list((tmp_path / "other").glob("shard-*"))


def test_a_lock_holds_also_where_nothing_is_learned_and_for_the_held_out_part(tmp_path):
    table(tmp_path, 400)
    path = pipeline(tmp_path, "SelectColumns: {columns: [x0, x1]}",
                    "split: {val: 0.25}\nrebalance: {RandomOverSampler: {}}\nexpand: {encode: npy}\n")
    fit(path, tmp_path)
    good("expand", path, "-o", tmp_path / "train", "--workers", 1)
    good("expand", path, "-o", tmp_path / "val", "--workers", 1, "--part", "val")
    table(tmp_path, 401)
    refused = run("expand", path, "-o", tmp_path / "other", "--workers", 1)
    assert refused.returncode == 1 and "the dataset is another one" in refused.stderr and "shardmill fit" in refused.stderr


def test_expand_and_its_slices_take_over_what_fit_has_learned(tmp_path):
    table(tmp_path, 400)
    path = pipeline(tmp_path, "StandardScaler, PCA: {n_components: 4}", "expand: {encode: npy}\n")
    alone = good("expand", path, "-o", tmp_path / "alone", "--workers", 1, cwd=tmp_path)
    assert alone.stderr.count("fits '") == 2
    good("fit", path, cwd=tmp_path)
    for name, more in [("whole", ()), ("sliced", ("--slice", "1/1")), ("half", ("--slice", "1/2"))]:
        again = good("expand", path, "-o", tmp_path / name, "--workers", 1, *more, cwd=tmp_path)
        assert "fits '" not in again.stderr
    shard = "shard-000000.npy"
    assert (tmp_path / "whole" / shard).read_bytes() == (tmp_path / "alone" / shard).read_bytes()


def test_neighbours_of_smote_are_pinned_like_all_that_is_learned(tmp_path):
    chance = np.random.default_rng(2)
    csv(tmp_path, chance.normal(size=(60, 3)), ["no"] * 50 + ["yes"] * 10)
    path = pipeline(tmp_path, "StandardScaler", "rebalance: {SMOTE: {k_neighbors: 3}}\n", source=CSV)
    fits = fit(path, tmp_path)
    assert [f["op"] for f in fits["fits"]] == ["SMOTE", "StandardScaler"]
    assert learned(tmp_path, fits, 1)["neighbours"].shape == (10, 3)
    good("check", "--locked", path)
    path.write_text(path.read_text().replace("k_neighbors: 3", "k_neighbors: 4"))
    assert "rebalance.SMOTE.k_neighbors is 4, was 3" in run("check", "--locked", path).stderr


def test_explain_knows_what_an_earlier_fit_has_learned(tmp_path):
    table(tmp_path, 400)
    path = pipeline(tmp_path, RANDOMIZED)
    before = good("explain", path, cwd=tmp_path).stdout
    assert before.count("is yet to be fitted") == 2 and "by randomized" in before
    fits = json.loads(good("fit", path, "--json", "--quiet", cwd=tmp_path).stdout)
    after = good("explain", path, cwd=tmp_path).stdout
    assert all(f"has learned {one['sha256'][:12]}" in after for one in fits["fits"])


def test_expand_and_explain_find_what_fit_has_learned_in_its_folder(tmp_path):
    table(tmp_path, 2000)
    path = pipeline(tmp_path, "StandardScaler, PCA: {n_components: 4}", more="expand: {encode: npy}\n")
    state = tmp_path / "state"
    hashes = [f["sha256"] for f in fit(path, tmp_path)["fits"]]
    text = good("explain", path, "--state", state).stdout
    assert all(sha[:12] in text for sha in hashes)
    assert hashes[0][:12] not in good("explain", path, "--state", tmp_path / "none").stdout
    found = good("expand", path, "-o", tmp_path / "found", "--state", state).stderr
    fitted = good("expand", path, "-o", tmp_path / "fitted", "--state", tmp_path / "none").stderr
    assert "fits '" not in found and "fits 'PCA'" in fitted
    assert digests(tmp_path / "found") == digests(tmp_path / "fitted")
    again, anew = (good("replay", path, "--step", 3, "--state", folder) for folder in (state, tmp_path / "none"))
    assert again.stdout == anew.stdout and "fits '" not in again.stderr and "fits 'PCA'" in anew.stderr
