"""Tables, features and skewed classes from end to end: the recipes of pipelines/, what is written and what is streamed, and that
neither tells by how many workers, leases or hosts it was made."""
import csv
import json
import math
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import ROOT, SHARDMILL, STAMPS, csv_rows, digests, good, leftovers, manifest, run, samples, wait_until
from stream import Served

sys.path.insert(0, str(ROOT / "client" / "python" / "src"))
import shardmill  # noqa: E402

SEGMENT = 2e-5  # of float32 features: how far a synthetic row may lie from its segment, in units of the columns' spread


@pytest.fixture(scope="session")
def cancer(tmp_path_factory):
    """The table of pipelines/table.yaml."""
    path = tmp_path_factory.mktemp("tables") / "breast_cancer.csv"
    subprocess.run([ROOT / "pipelines" / "demo_table.sh", path], check=True)
    return path


def recipe(tmp_path, name, **changes):
    """A recipe of pipelines/ with some of its text changed."""
    text = (ROOT / "pipelines" / f"{name}.yaml").read_text()
    for before, after in changes.values():
        assert before in text, before
        text = text.replace(before, after)
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    return file


def npy_rows(out):
    return np.concatenate([np.load(out / shard["name"], allow_pickle=False) for shard in manifest(out)["shards"]])


@pytest.fixture(scope="module")
def table(cancer, tmp_path_factory):
    """The table recipe as csv, made by one worker."""
    out = tmp_path_factory.mktemp("table") / "out"
    good("expand", ROOT / "pipelines" / "table.yaml", "--source", cancer, "-o", out, "--workers", 1)
    return out


# ---- the recipes ----

def test_the_table_recipe_writes_rows_that_tell_where_they_come_from(table, cancer):
    m, rows = manifest(table), csv_rows(table)
    assert leftovers(table) == [] and m["format"] == "csv" and m["part"] == "train" and m["rebalance"] == "SMOTE"
    assert list(rows[0]) == m["columns"] + ["label", "row", "copy", "parent", "neighbour", "gap"]
    with open(cancer, newline="") as file:
        source = [row["diagnosis"] for row in csv.DictReader(file)]
    assert len(rows) == m["planned"] == sum(c["planned"] for c in m["per_class"].values())
    real = [r for r in rows if r["row"] != ""]
    assert all(source[int(r["row"])] == r["label"] for r in real)
    assert len({r["row"] for r in real}) == len(real)  # SMOTE repeats no row
    # a fifth is held out, of each class; the rarer class is then filled up
    held = {name: round(0.2 * source.count(name)) for name in ("benign", "malignant")}
    for name, c in m["per_class"].items():
        assert abs(c["present"] - (source.count(name) - held[name])) <= 1
        assert c["planned"] == max(x["present"] for x in m["per_class"].values())
        assert c["synthetic"] == c["planned"] - c["present"] == sum(r["label"] == name and r["row"] == "" for r in rows)


def test_every_synthetic_row_lies_between_its_parents(table):
    m, rows = manifest(table), csv_rows(table)
    features = {int(r["row"]): np.array([float(r[c]) for c in m["columns"]]) for r in rows if r["row"]}
    spread = np.std(list(features.values()), axis=0)
    label = {int(r["row"]): r["label"] for r in rows if r["row"]}
    made = [r for r in rows if not r["row"]]
    assert made
    for r in made:  # the ops are affine, so segments stay segments
        parent, neighbour, gap = int(r["parent"]), int(r["neighbour"]), float(r["gap"])
        assert 0 <= gap < 1 and parent != neighbour and label[parent] == label[neighbour] == r["label"]
        want = features[parent] + gap * (features[neighbour] - features[parent])
        got = np.array([float(r[c]) for c in m["columns"]])
        assert np.all(np.abs(got - want) <= SEGMENT * (np.abs(want) + spread)), (r, want)


@pytest.mark.parametrize("encode", ["csv", "npy"])
def test_a_row_of_noise_tells_the_row_that_it_was_made_from(tmp_path, encode):
    rows = [f"{i},{i * i % 97},{'rare' if i % 5 == 0 else 'often'}" for i in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,class", *rows, ""]))
    file = tmp_path / "t.yaml"
    file.write_text("version: 1\nsource: {format: csv, path: t.csv, label: class, float64: true}\n"
                    "rebalance: {RandomOverSampler: {shrinkage: 0.001}}\noutput: {dtype: float64}\n"
                    f"expand: {{encode: {encode}}}\n")
    good("expand", file, "-o", tmp_path / "out")
    found = csv_rows(tmp_path / "out") if encode == "csv" else npy_rows(tmp_path / "out")
    if encode == "csv":
        assert list(found[0])[2:] == ["label", "row", "copy", "parent", "neighbour", "gap"]
        made = [r for r in found if r["row"] == ""]
        assert all(r["parent"] == "" for r in found if r["row"] != "")
        assert all(r["neighbour"] == r["gap"] == "" for r in found)
        told = [(int(r["parent"]), float(r["a"]), float(r["b"])) for r in made]
    else:
        assert found.dtype.names == ("features", "label", "row", "copy", "parent", "neighbour", "gap")
        made = found[found["row"] == -1]
        assert (found["parent"][found["row"] >= 0] == -1).all()
        assert (found["neighbour"] == -1).all() and np.isnan(found["gap"]).all()
        told = [(int(r["parent"]), *r["features"]) for r in made]
    assert len(told) == 160 - 40 and {parent for parent, _, _ in told} <= set(range(0, 200, 5))
    assert len({parent for parent, _, _ in told}) > 10
    for parent, a, b in told:
        assert abs(a - parent) < 0.5 and abs(b - parent * parent % 97) < 0.5


def test_the_parts_of_a_split_are_all_rows_and_share_none(table, cancer, tmp_path):
    good("expand", ROOT / "pipelines" / "table.yaml", "--source", cancer, "--part", "val", "-o", tmp_path / "val")
    m = manifest(tmp_path / "val")
    assert m["part"] == "val" and "rebalance" not in m
    train = {int(r["row"]) for r in csv_rows(table) if r["row"]}
    val = [int(r["row"]) for r in csv_rows(tmp_path / "val")]
    assert len(val) == len(set(val)) and train.isdisjoint(val) and train | set(val) == set(range(569))
    assert m["columns"] == manifest(table)["columns"]  # the same fit, of the training part


def test_the_manifest_says_how_to_undo_the_rebalancing(table):
    per = manifest(table)["per_class"]
    present, planned = (sum(c[key] for c in per.values()) for key in ("present", "planned"))
    for c in per.values():
        want = math.log(c["present"] / present) - math.log(c["planned"] / planned)
        assert math.isclose(c["log_prior_shift"], want, rel_tol=1e-12)


def test_the_skewed_recipe_draws_every_class_equally(tmp_path):
    if not STAMPS.is_dir():
        pytest.skip("needs tuxpaint-stamps-default")
    out = tmp_path / "out"
    good("expand", ROOT / "pipelines" / "skewed.yaml", "-o", out)
    m = manifest(out)
    most = max(c["present"] for c in m["per_class"].values())
    assert {c["planned"] for c in m["per_class"].values()} == {most} and len(m["per_class"]) == 9
    found = {}
    for s in samples(out):
        found.setdefault((s["json"]["class"], s["json"]["source"]), []).append(s)
    for (name, source), copies in found.items():
        each = most / m["per_class"][name]["present"]
        assert math.floor(each) <= len(copies) <= math.ceil(each), (name, source)
        assert len({s["bytes"] for s in copies}) == len(copies)  # an added copy has draws of its own
        assert sorted(s["json"]["copy"] for s in copies) == list(range(len(copies)))
        for s in copies:
            ops = [d["op"] for d in s["json"]["draws"]]
            assert ("RandomRotation" in ops) == (s["json"]["copy"] > 0), (name, source, ops)


def test_the_pca_recipe_makes_features_of_pictures(tmp_path):
    if not STAMPS.is_dir():
        pytest.skip("needs tuxpaint-stamps-default")
    out = tmp_path / "out"
    good("expand", ROOT / "pipelines" / "pca.yaml", "-o", out, "--workers", 1)
    good("expand", ROOT / "pipelines" / "pca.yaml", "-o", tmp_path / "again", "--workers", 2, "--lease", 13)
    assert digests(tmp_path / "again") == digests(out)
    rows = npy_rows(out)
    assert rows.dtype.names == ("features", "label", "sample") and rows["features"].dtype == np.float32
    assert rows["features"].shape == (146, 32) and sorted(rows["sample"]) == list(range(146))
    centred = rows["features"].astype(float)
    variances = centred.var(axis=0)
    assert np.all(np.abs(centred.mean(axis=0)) < 1e-4 * np.sqrt(variances[0]))
    assert np.all(variances[:-1] >= variances[1:] * 0.9999)  # in order of explained variance
    off = np.corrcoef(centred.T) - np.eye(32)
    assert np.abs(off).max() < 1e-3  # and uncorrelated


# ---- the same bytes ----

def test_workers_leases_and_hosts_leave_no_trace(table, cancer, tmp_path):
    file = ROOT / "pipelines" / "table.yaml"
    good("expand", file, "--source", cancer, "-o", tmp_path / "two", "--workers", 2, "--lease", 7)
    assert digests(tmp_path / "two") == digests(table)
    for k in (1, 2, 3):
        good("expand", file, "--source", cancer, "-o", tmp_path / "slices", "--slice", f"{k}/3", "--workers", 1)
    good("merge", tmp_path / "slices", "--verify")
    assert digests(tmp_path / "slices") == digests(table)
    again = good("expand", file, "--source", cancer, "-o", tmp_path / "two")
    assert "already complete" in again.stdout and "synthetic" in again.stdout


def test_what_is_streamed_is_what_is_written(cancer, tmp_path, start):
    file = recipe(tmp_path, "table", encode=("encode: csv", "encode: npy"))
    good("expand", file, "--source", cancer, "-o", tmp_path / "out")
    rows = npy_rows(tmp_path / "out")
    served = Served(start, file, tmp_path / "state", "--source", cancer, "--workers", 2)
    with shardmill.Loader(served.name, broker=served.endpoint, weights=True, timeout=60) as loader:
        at = 0
        for batch in loader:
            n = int((~batch["padding"]).sum())
            want = rows[at:at + n]
            assert batch["features"].dtype == np.float32 and np.array_equal(batch["features"][:n], want["features"])
            assert np.array_equal(batch["label"][:n], want["label"])
            assert np.array_equal(batch.position[:n], np.arange(at, at + n))
            at += n
        assert at == len(rows)
        assert loader.classes == ["benign", "malignant"]
        counts = loader.class_counts()
        assert [c["last_epoch"] for c in counts] == [c["drawn"] for c in counts] == list(np.bincount(rows["label"]))
        per = manifest(tmp_path / "out")["per_class"]
        assert np.allclose(loader.log_prior_shift(), [per[c]["log_prior_shift"] for c in loader.classes], rtol=1e-12)


def hides_folders():
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not hides_folders(), reason="no mount namespaces here")
def test_what_was_learned_is_fetched_by_workers_and_replay_that_lack_its_folder(cancer, tmp_path, start):
    """SMOTE's neighbours and what the ops have learned come from the broker. Others see an empty state folder; a submitter's
    is gone altogether when it ends, with the index."""
    state, empty = tmp_path / "state", ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']
    served = Served(start, ROOT / "pipelines" / "table.yaml", state, "--source", cancer, "--workers", 1)
    lines = served.lines()
    assert list((state / "artifacts").glob("*.npz")) and len(lines) > 3
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for line in (lines[0], lines[-1]):
        replayed = subprocess.run([*empty, state, SHARDMILL, "replay", served.name, "--broker", served.endpoint, "--step",
                                   str(line["step"])], capture_output=True, text=True, timeout=60, env={**os.environ, "TMPDIR": str(scratch)})
        assert replayed.returncode == 0 and json.loads(replayed.stdout) == line, replayed.stderr
    assert list(scratch.iterdir()) == [], "what was fetched ends with the process"
    alone = start("broker", "--bind", "tcp://127.0.0.1:*", "--state", tmp_path / "broker", stderr=subprocess.DEVNULL)
    endpoint = re.search(r"tcp://[0-9.:]+", alone.process.stdout.readline()).group()
    private = tmp_path / "private"
    private.mkdir()
    subprocess.run([*empty, private, SHARDMILL, "submit", ROOT / "pipelines" / "table.yaml", "--source", cancer, "--broker", endpoint,
                    "--state", private], check=True, timeout=60, capture_output=True)
    assert list(private.iterdir()) == []
    kept = sorted(len(p.name) for p in (tmp_path / "broker" / "files").iterdir())
    assert kept[0] == 32 and kept[1:] == [64] * (len(kept) - 1) and len(kept) > 2, "an index and artifacts, by their digests"
    far = subprocess.Popen([*empty, state, SHARDMILL, "worker", "--broker", endpoint], stderr=subprocess.DEVNULL)
    try:
        read = good("read", served.name, "--broker", endpoint, "--digest", timeout=60)
        assert [json.loads(line) for line in read.stdout.splitlines()] == lines
    finally:
        far.terminate()
        far.wait(timeout=30)


@pytest.mark.parametrize("world", [1, 4])
def test_the_audit_has_the_drawn_counts_of_each_rank(cancer, tmp_path, start, world):
    file = ROOT / "pipelines" / "table.yaml"
    served = Served(start, file, tmp_path / "state", "--source", cancer, "--workers", 1)
    readers = [served.reader("--json", "--epochs", 3, "--rank", r, "--world-size", world) for r in range(world)]
    reports = []
    for reader in readers:
        out, err = reader.communicate(timeout=300)
        assert reader.returncode == 0, err
        reports.append(json.loads(out))
    for epoch in range(3):
        classes = [report["epochs"][epoch]["classes"] for report in reports]
        for of_class in zip(*classes):
            assert sum(c["delivered"] for c in of_class) == of_class[0]["drawn"]
            want = math.log(of_class[0]["present"] / sum(c[0]["present"] for c in zip(*classes)))
            want -= math.log(of_class[0]["drawn"] / sum(c[0]["drawn"] for c in zip(*classes)))
            assert math.isclose(of_class[0]["log_prior_shift"], want, abs_tol=1e-12)


SKEWED = {"a": 60, "b": 25, "c": 16}
METHODS = {  # what each class has in an epoch, by the method's definition
    "RandomOverSampler: {}": [60, 60, 60],
    "RandomOverSampler: {sampling_strategy: {c: 41}}": [60, 25, 41],
    "RandomUnderSampler: {}": [16, 16, 16],
    "RepeatFactor: {threshold: 0.4}": [60, round(25 * math.sqrt(0.4 / (25 / 101))), round(16 * math.sqrt(0.4 / (16 / 101)))],
    "ClassBalancedBatches: {n_classes: 3, n_samples: 4}": None,
    "SMOTE: {}": [60, 60, 60],
    "SMOTENC: {}": [60, 60, 60],
}


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """A table of three classes with numbers and a column of words, and one without words."""
    folder, rng = tmp_path_factory.mktemp("skewed"), np.random.default_rng(1)
    for name, words in (("mixed", True), ("numbers", False)):
        with open(folder / f"{name}.csv", "w") as file:
            file.write("x,z," + ("w," if words else "") + "label\n")
            for label, n in SKEWED.items():
                for _ in range(n):
                    file.write(f"{rng.normal():.4f},{rng.normal():.4f}," + (rng.choice(["p", "q"]) + "," if words else "") + f"{label}\n")
    return folder


def drawn(loader, state, steps=None):
    """Labels that a rank is given from a state on, to the end of the epoch or so many steps; and the state behind them."""
    loader.load_state_dict(state)
    counts = np.zeros(3, int)
    for batch in loader:
        np.add.at(counts, batch["label"][~batch["padding"]].astype(int), 1)
        if steps is not None and (steps := steps - 1) == 0:
            break
    return counts, loader.state_dict()


@pytest.mark.parametrize("method,workers", zip(METHODS, [1, 2, 3, 4, 2, 2, 1]))
def test_drawn_counts_are_exact_for_any_ranks_and_workers_and_after_a_resume(skewed, tmp_path, start, method, workers):
    file, table = tmp_path / "p.yaml", "mixed" if method.startswith("SMOTENC") else "numbers"
    file.write_text(f"version: 1\nname: drawn\nseed: 4\nsource: {{format: csv, path: {skewed}/{table}.csv, label: label}}\n"
                    f"rebalance: {{{method}}}\nops: [{'OneHotEncoder' if table == 'mixed' else 'StandardScaler'}]\n"
                    "output: {batch_size: 12, shuffle: true, drop_last: false}\n")
    served = Served(start, file, tmp_path / "state", "--workers", workers)

    def ranks(world):
        return [shardmill.Loader(served.name, broker=served.endpoint, rank=rank, world_size=world, timeout=60) for rank in range(world)]

    def closed(loaders):
        for loader in loaders:
            loader.close()

    begin, want = None, METHODS[method]
    for world in (1, 2, 3, 4):
        loaders = ranks(world)
        if begin is None:
            begin = loaders[0].state_dict()
            assert [c["present"] for c in loaders[0].class_counts()] == list(SKEWED.values())
            want = want or [c["drawn"] for c in loaders[0].class_counts()]
        epochs = [[drawn(loader, begin) for loader in loaders]]
        epochs.append([drawn(loader, state) for loader, (_, state) in zip(loaders, epochs[0])])
        assert [sum(counts for counts, _ in epoch).tolist() for epoch in epochs] == [want, want], world
        assert [c["drawn"] for c in loaders[0].class_counts()] == want
        closed(loaders)
    for before, after, steps in ((2, 3, 1), (3, 1, 1), (1, 4, 2)):
        loaders = ranks(before)
        first = [drawn(loader, begin, steps) for loader in loaders]
        closed(loaders)
        loaders = ranks(after)
        rest = [drawn(loader, first[0][1]) for loader in loaders]
        closed(loaders)
        assert sum(counts for counts, _ in first + rest).tolist() == want, (before, after, steps)


OF_IMAGES = {
    "pictures": "[RandomResizedCrop: {size: 32}]\noutput: {batch_size: 5}",
    "features": "[Resize: {size: [16, 16]}, Grayscale, Flatten, StandardScaler, PCA: {n_components: 3}]\noutput: {batch_size: 5}",
}


@pytest.mark.parametrize("kind", OF_IMAGES)
def test_rebalanced_pictures_and_features_of_them_are_the_same_for_any_workers_and_ranks_and_replayed(photos, tmp_path, start, kind):
    """Three classes of 16, 6 and 2 pictures, each drawn 16 times an epoch; added copies get a flip that originals do not."""
    minority = "augment_minority: [RandomHorizontalFlip]" if kind == "pictures" else ""
    file = tmp_path / "p.yaml"
    file.write_text(f"version: 1\nname: images\nseed: 6\nsource: {{format: folder, path: {photos}}}\n"
                    f"rebalance: {{RandomOverSampler: {{{minority}}}}}\nops: {OF_IMAGES[kind]}\n")
    seen = []
    for workers, world in ((1, 1), (2, 1), (3, 2)):
        served = Served(start, file, tmp_path / f"state{workers}", "--workers", workers)
        digests = sorted((line["step"] * world + rank, line["digest"])
                         for rank, lines in enumerate(served.together(world, "--epochs", 1)) for line in lines)
        loaders = [shardmill.Loader(served.name, broker=served.endpoint, rank=r, world_size=world, timeout=60) for r in range(world)]
        begin = loaders[0].state_dict()
        counts = [sum(c) for c in zip(*(drawn(loader, begin)[0] for loader in loaders))]
        for loader in loaders:
            loader.close()
        assert counts == [16, 16, 16]
        seen.append(digests)
        if world == 1:
            for line in (served.lines("--epochs", 1)[0], served.lines("--epochs", 1)[-1]):
                replayed = good("replay", served.name, "--broker", served.endpoint, "--step", line["step"]).stdout
                assert json.loads(replayed) == line
        served.started.end()
    assert seen[0] == seen[1]
    whole = [s for s in seen[0] if s[0] < 48 // 5]  # padding differs with the world
    assert seen[2][:len(whole)] == whole


def test_the_held_out_part_is_served_beside_the_training_part(table, cancer, tmp_path, start):
    served = Served(start, ROOT / "pipelines" / "table.yaml", tmp_path / "state", "--source", cancer, "--workers", 1, "--epochs", 1)
    train = {int(r["row"]) for r in csv_rows(table) if r["row"]}
    with shardmill.Loader(served.name + "/val", broker=served.endpoint, timeout=60) as held_out:
        for _ in range(2):  # as often as somebody wants, whatever --epochs says
            seen = [int(i) for batch in held_out for i in batch["index"][~batch["padding"]]]
            assert len(seen) == len(set(seen)) and sorted(set(seen) | train) == list(range(569)) and train.isdisjoint(seen)
    embedded = shardmill.Loader(ROOT / "pipelines" / "table.yaml", source=cancer, part="val", workers=1, timeout=60)
    with embedded:
        assert sorted(int(i) for batch in embedded for i in batch["index"][~batch["padding"]]) == sorted(seen)


# ---- bad input ----

BAD = """\
a,b,kind,class
1,2,x,yes
3,4
5,6,"y,yes
7,8,x,no
"""


def small(tmp_path, text, ops="[]", more=""):
    (tmp_path / "small.csv").write_text(text)
    file = tmp_path / "small.yaml"
    file.write_text(f"version: 1\nname: small\nseed: 1\nsource: {{format: csv, path: small.csv, label: class{more}}}\n"
                    f"ops: {ops}\noutput: {{shuffle: false}}\n")
    return file


def test_a_row_that_cannot_be_read_is_listed_with_line_and_offset(tmp_path):
    good_rows = "".join(f"{i},{i * i},x,{'yes' if i % 3 else 'no'}\n" for i in range(300))
    text = "a,b,kind,class\n" + good_rows + "7,8\n" + "9,1e999,x,yes\n"
    done = run("expand", small(tmp_path, text), "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr  # 2 of 302 are less than the 1 % that are allowed
    assert "2 rows of the table could not be read" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert [(l["row"], l["line"], l["stage"]) for l in lines] == [(300, 302, "index"), (301, 303, "index")]
    assert [text[l["offset"]:].split("\n")[0] for l in lines] == ["7,8", "9,1e999,x,yes"]
    assert all(l["text"] and l["file"] == "small.csv" for l in lines)
    assert manifest(tmp_path / "out")["unreadable_rows"] == 2 and manifest(tmp_path / "out")["planned"] == 300
    rows = csv_rows(tmp_path / "out")
    assert [int(r["row"]) for r in rows] == list(range(300)) and rows[17]["b"] == "289" and rows[0]["kind"] == "x"


def test_a_row_that_overflows_is_quarantined_with_column_and_cause(tmp_path):
    """1e300 is a float64, not a float32; an op may multiply a number out of range too. A missing cell may leave."""
    rows = [f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(300)]
    rows[17], rows[40], rows[99] = "1e300,1,yes", ",1,yes", "-3.4028235677973366e38,1,no"  # the last: the least that overflows
    text = "\n".join(["a,b,class", *rows, ""])
    for dtype, ops, encode, bad, words in (
            ("float32", "[DropColumns: {columns: [b]}]", "csv", [17, 99], "column 'a' is 1e+300, too large for float32"),
            ("float32", "[DropColumns: {columns: [b]}]", "npy", [17, 99], "column 'a' is 1e+300, too large for float32"),
            ("float32", "[]", "csv", [17, 99], "column 'a' is 1e+300, too large for float32"),
            ("float64", "[]", "csv", [], ""),
            ("float64", "[StandardScaler]", "csv", None, "")):
        (tmp_path / "t.csv").write_text(text)
        file = tmp_path / "t.yaml"
        file.write_text("version: 1\nsource: {format: csv, path: t.csv, label: class, float64: true}\n"
                        f"ops: {ops}\noutput: {{shuffle: false, dtype: {dtype}}}\nexpand: {{encode: {encode}}}\n")
        out = tmp_path / f"out-{dtype}-{encode}-{len(ops)}"
        done = run("expand", file, "-o", out)
        if bad is None:
            assert done.returncode == 1 and "'StandardScaler': column 'a' has numbers too large" in done.stderr, done.stderr
            continue
        assert done.returncode == 0, done.stderr
        told = out / "quarantine.jsonl"
        lines = sorted((json.loads(line) for line in told.read_text().splitlines()), key=lambda l: l["row"]) if told.exists() else []
        assert [l["row"] for l in lines] == bad and all(l["stage"] == "ops" for l in lines)
        if bad:
            assert lines[0]["text"].startswith(words), lines[0]
            assert [l["line"] for l in lines] == [row + 2 for row in bad] and {l["file"] for l in lines} == {"t.csv"}
            assert all(text[l["offset"]:].startswith(rows[l["row"]] + "\n") for l in lines)
        cells = npy_rows(out)["features"][:, 0] if encode == "npy" else \
            np.array([float(r["a"] or "nan") for r in csv_rows(out)])
        assert not np.isinf(cells).any() and np.isnan(cells).sum() == 1


def test_rows_of_which_none_can_be_taken_are_said_plainly(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("version: 1\nsource: {format: csv, path: t.csv, label: class, float64: true}\nops: []\n"
                    "output: {dtype: float32}\n")
    (tmp_path / "t.csv").write_text("a,class\n" + "1e300,no\n" * 3)
    done = run("expand", file, "-o", tmp_path / "out")
    assert done.returncode == 1 and "no row was found" in done.stderr, done.stderr
    assert "others were tried 4 times" in done.stderr, "two as of the class, and two as of all"


def test_what_an_op_makes_infinite_is_quarantined_with_op_and_column(tmp_path):
    """The row of 1e300 is of the held-out part, so the scale is that of small numbers."""
    file = tmp_path / "t.yaml"
    file.write_text("version: 1\nsource: {format: csv, path: t.csv, label: class, float64: true}\nsplit: {val: 0.5}\n"
                    "ops: [MinMaxScaler: {feature_range: [0, 1e12]}]\noutput: {dtype: float64}\n")
    rows = [f"{i % 5},{'yes' if i % 2 else 'no'}" for i in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["a,class", *rows, ""]))
    good("expand", file, "--part", "val", "-o", tmp_path / "held")
    bad = int(csv_rows(tmp_path / "held")[7]["row"])
    rows[bad] = "1e300,no"
    (tmp_path / "t.csv").write_text("\n".join(["a,class", *rows, ""]))
    done = run("expand", file, "--part", "val", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    [line] = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert line["row"] == bad and line["text"] == "'MinMaxScaler' makes column 'a' infinite"
    assert all(float(r["a"]) <= 1e12 for r in csv_rows(tmp_path / "out"))


def test_too_many_unreadable_rows_end_with_3_and_on_error_fail_with_the_sentence(tmp_path):
    done = run("expand", small(tmp_path, BAD), "-o", tmp_path / "out")
    assert done.returncode == 3 and "of the rows are quarantined" in done.stderr, done.stderr
    done = run("expand", small(tmp_path, BAD, more=", on_error: fail"), "-o", tmp_path / "other")
    assert done.returncode == 1 and "line 3" in done.stderr, done.stderr


def test_a_feature_named_as_a_column_of_shards_is_refused_for_csv_alone(tmp_path):
    (tmp_path / "t.csv").write_text("row,x,y\n" + "".join(f"{i},{i / 3},{'ab'[i % 2]}\n" for i in range(20)))
    file = tmp_path / "t.yaml"
    file.write_text("version: 1\nsource: {format: csv, path: t.csv, label: y}\nops: []\nexpand: {encode: csv}\n")
    refused = run("expand", file, "-o", tmp_path / "out")
    assert refused.returncode == 2 and "a column 'row' of its own" in refused.stderr and "DropColumns" in refused.stderr
    file.write_text(file.read_text().replace("encode: csv", "encode: npy"))
    good("expand", file, "-o", tmp_path / "npy")
    file.write_text(file.read_text().replace("encode: npy", "encode: csv").replace("ops: []", "ops: [DropColumns: {columns: [row]}]"))
    good("expand", file, "-o", tmp_path / "csv")


def test_no_two_columns_have_one_name(tmp_path):
    (tmp_path / "t.csv").write_text("a,a_b,gap,y\n" + "".join(f"{'b_c' if i % 2 else 'z'},{'c' if i % 3 else 'y'},{i},{'ab'[i % 4 == 0]}\n"
                                                              for i in range(40)))
    file = tmp_path / "t.yaml"
    text = "version: 1\nsource: {format: csv, path: t.csv, label: y}\nops: [OPS]\nrebalance: {RandomOverSampler: {}}\nexpand: {encode: csv}\n"
    file.write_text(text.replace("OPS", "OneHotEncoder"))  # a = b_c and a_b = c have the same name
    refused = run("expand", file, "-o", tmp_path / "out")
    assert refused.returncode == 2 and "'OneHotEncoder': two of the columns that it leaves are called 'a_b_c'" in refused.stderr
    file.write_text(text.replace("OPS", "SelectColumns: {columns: [gap, a, gap]}"))
    refused = run("expand", file, "-o", tmp_path / "out")
    assert refused.returncode == 2 and "called 'gap'" in refused.stderr, refused.stderr
    file.write_text(text.replace("OPS", "SelectColumns: {columns: [gap]}"))  # only synthetic rows have a gap of their own
    good("expand", file, "-o", tmp_path / "gap")
    assert list(csv_rows(tmp_path / "gap")[0]) == ["gap", "label", "row", "copy"]


def test_two_ops_of_a_kind_name_their_columns_apart(tmp_path):
    text = "a,b,c,d,class\n" + "".join(f"{i % 7},{i % 5},{i * i % 11},{i % 3},{'xy'[i % 2]}\n" for i in range(100))
    ops = "[KMeans: {n_clusters: 2, columns: [a, b]}, KMeans: {n_clusters: 3, columns: [c]}, " \
          "PCA: {n_components: 1, columns: [a, c]}, PCA: {n_components: 2, columns: [b, d]}]"
    file = small(tmp_path, text, ops.replace("columns: [c]", "columns: [d], output: distances").replace("[a, c]", "[c, kmeans1]")
                 .replace("[b, d]", "[kmeans0, kmeans2]"))
    good("expand", file, "-o", tmp_path / "out")
    assert list(csv_rows(tmp_path / "out")[0]) == ["pca_2_0", "pca_2_1", "pca0", "kmeans", "label", "row"]


def test_a_table_that_changes_amid_a_run_does_not_spoil_what_is_made(tmp_path, start):
    """Rows come from the index: the file alone says on which line one stands that an op refuses."""
    text = "a,class\n" + "".join(f"{'1e300' if i == 7 else i},{'ab'[i % 2]}\n" for i in range(300))
    file = tmp_path / "t.yaml"
    file.write_text("version: 1\nsource: {format: csv, path: t.csv, label: class, float64: true}\nops: []\nexpand: {encode: csv}\n")
    (tmp_path / "t.csv").write_text(text)
    good("expand", file, "-o", tmp_path / "alone")
    broker = start("broker", "--bind", "tcp://127.0.0.1:*", "--state", tmp_path / "state")
    endpoint = broker.process.stdout.readline().split()[2].rstrip(",")
    at_work = start("expand", file, "-o", tmp_path / "out", "--broker", endpoint)
    wait_until(lambda: json.loads(good("status", "--broker", endpoint, "--json").stdout)["jobs"])
    (tmp_path / "t.csv").write_text(text + "9,a\n")
    start("worker", "--broker", endpoint)
    assert at_work.process.wait(60) == 0
    line, = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert line["row"] == 7 and line["file"] == "t.csv" and "line" not in line and "offset" not in line
    want, got = digests(tmp_path / "alone"), digests(tmp_path / "out")
    assert {n: d for n, d in got.items() if n.startswith("shard-")} == {n: d for n, d in want.items() if n.startswith("shard-")}


def test_a_number_that_no_sample_has_as_its_label_shifts_nothing(tmp_path, start):
    """Whole numbers are labels as they are: with 1, 2 and 3 there is a class 0, which has no samples."""
    text = "a,class\n" + "".join(f"{i},{1 + (i % 10 > 5) + (i % 10 > 8)}\n" for i in range(100))
    for name, more, shift in (("plain", "", [0, 0, 0, 0]),
                              ("over", "rebalance: {RandomOverSampler: {}}\n", [0, *np.log(np.array([.6, .3, .1]) * 3)])):
        file = small(tmp_path, text)
        file.write_text(file.read_text().replace("name: small", f"name: {name}") + more)
        served = Served(start, file, tmp_path / name)
        with shardmill.Loader(name, broker=served.endpoint, timeout=60) as loader:
            assert np.allclose(loader.log_prior_shift(), shift, atol=1e-12)
            next(iter(loader))
        told = json.loads(good("explain", file, "--json").stdout)["dataset"]["classes"]
        assert all(c.get("log_prior_shift", 0) is not None for c in told)


def test_replay_of_what_learns_leaves_nothing_behind(tmp_path):
    text = "a,class\n" + "".join(f"{i % 13},{'yes' if i % 4 else 'no'}\n" for i in range(200))
    file, temporary = small(tmp_path, text, "[StandardScaler]"), tmp_path / "tmp"
    temporary.mkdir()
    for step, code in (("0", 0), ("99999", 2)):
        done = run("replay", file, "--step", step, env={"TMPDIR": str(temporary)})
        assert done.returncode == code and list(temporary.iterdir()) == [], done.stderr
    before = time.monotonic()
    done = run("replay", tmp_path / "smal.yaml", "--step", "0")
    assert done.returncode == 2 and "is no file" in done.stderr and time.monotonic() - before < 4


def test_val_without_a_split_is_refused(tmp_path):
    done = run("expand", small(tmp_path, BAD), "--part", "val", "-o", tmp_path / "out")
    assert done.returncode == 2 and "split: {val:" in done.stderr and not (tmp_path / "out").exists()


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_an_interrupted_run_goes_on_over_a_table_that_was_only_touched(tmp_path):
    text = "a,b,class\n" + "".join(f"{i},{i % 7},{i % 2}\n" for i in range(40000))
    file = small(tmp_path, text)
    file.write_text(file.read_text() + "expand: {samples_per_shard: 200}\n")
    good("expand", file, "-o", tmp_path / "want")
    out = tmp_path / "out"
    started = subprocess.Popen([SHARDMILL, "expand", file, "-o", out, "--workers", "1"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: (out / "shard-000003.csv").exists())
    started.kill()
    started.wait()
    assert not (out / "manifest.json").exists()
    os.utime(tmp_path / "small.csv", (1, 1))
    good("expand", file, "-o", out)
    assert digests(out) == digests(tmp_path / "want")


def test_a_complete_folder_is_recognised_without_learning_again(tmp_path):
    text = "a,class\n" + "".join(f"{i % 13},{'yes' if i % 4 else 'no'}\n" for i in range(200))
    file, out = small(tmp_path, text, "[StandardScaler]"), tmp_path / "out"
    assert "fits 'StandardScaler'" in good("expand", file, "-o", out).stderr
    before = digests(out)
    again = good("expand", file, "-o", out)
    assert "already complete" in again.stdout and "fits" not in again.stderr and digests(out) == before
    assert run("expand", file, "-o", out, "--seed", 2).returncode != 0
    (out / "shard-000000.csv").unlink()
    again = good("expand", file, "-o", out)  # the shard is made anew, and for that the scaler
    assert "is made again" in again.stderr and "fits" in again.stderr and digests(out) == before
    good("fit", file, "--state", tmp_path / "state")
    lock = tmp_path / "small.lock"
    lock.write_text(re.sub('"sha256": "[0-9a-f]{8}', '"sha256": "00000000', lock.read_text()))
    done = run("expand", file, "-o", out)  # another artifact is pinned than the folder was made with
    assert done.returncode != 0 and "small.lock' says" in done.stderr, done.stderr


def test_an_index_of_an_earlier_version_is_made_anew_without_a_word(tmp_path):
    state = tmp_path / "state"
    file = small(tmp_path, "a,class\n1,x\n2,y\n", "[StandardScaler]")
    good("fit", file, "--state", state)
    index, = state.glob("index-*")
    whole = index.read_bytes()
    index.write_bytes(whole[:8] + b"\x01\0\0\0" + whole[12:])
    done = good("fit", file, "--state", state)
    assert "index" not in done.stderr and index.read_bytes() == whole


def test_a_stray_word_in_a_column_of_numbers_is_told_by_explain_and_quarantined_when_declared(tmp_path):
    text = "a,class\n" + "".join(f"{'n.a.' if i == 7 else i},{i % 2}\n" for i in range(200))
    told = good("explain", small(tmp_path, text)).stdout
    assert "nearly all of these are numbers, but not 'n.a.'" in told and "source.numeric" in told
    file = small(tmp_path, text, more=", numeric: [a], header: true, float64: yes")
    assert "nearly all" not in good("explain", file).stdout
    good("expand", file, "-o", tmp_path / "out")
    line, = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert line["line"] == 9 and text[line["offset"]:].startswith("n.a.,") and "is no number" in line["text"]


@pytest.mark.parametrize("before, after, told", [
    ("ops: []", "split: {by: a}\nops: []", "nothing is held out"),
    ("label: class", "label: class, categorical: [class]", "source.categorical 'class' is what source.label names"),
    ("label: class", "label: class, delimiter: ';'", "is source.delimiter right?"),
])
def test_what_would_be_ignored_is_refused_with_a_sentence(tmp_path, before, after, told):
    file = small(tmp_path, "a,b,class\n1,2,x\n3,4,y\n")
    file.write_text(file.read_text().replace(before, after))
    done = run("explain", file)
    assert done.returncode != 0 and told in done.stderr, done.stderr
