"""Importance weights, natural probability / that with which a sample is drawn, from `output: {weights: true}` to every place where
they are seen: shards, batches in C and Python, explain, read, replay, preview. Nothing else changes, and nothing without the key."""
import contextlib
import csv
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from conftest import ROOT, SHARDMILL, csv_rows, digests, good, manifest, run, samples
from stream import Served

sys.path.insert(0, str(ROOT / "client" / "python" / "src"))
import shardmill  # noqa: E402

BUILD = pathlib.Path(os.environ.get("BUILD", pathlib.Path(SHARDMILL).parent))
ROWS, NAMES, COLUMN_DRAWS = 120, ("a", "b", "c"), 4000
LABEL = np.array([2 if i % 12 == 5 else 1 if i % 4 == 2 else 0 for i in range(ROWS)])  # a: 80, b: 30, c: 10
DRAW = np.array([(i % 8 + 1) / 4 for i in range(ROWS)])  # the column of weights: 0.25 to 2

METHODS = {
    "none": None,
    "over": {"RandomOverSampler": {}},
    "over-smoothed": {"RandomOverSampler": {"shrinkage": 0.5}},
    "under": {"RandomUnderSampler": {}},
    "under-replacement": {"RandomUnderSampler": {"replacement": True}},
    "under-without-b": {"RandomUnderSampler": {"sampling_strategy": {"b": 0}}},
    "weighted": {"WeightedSampler": {}},
    "weighted-map": {"WeightedSampler": {"weights": {"a": 0.5, "c": 3}, "num_samples": 200}},
    "weighted-without-a": {"WeightedSampler": {"weights": {"a": 0}}},
    "weighted-column": {"WeightedSampler": {"weights": "draw", "num_samples": COLUMN_DRAWS}},
    "repeat": {"RepeatFactor": {"threshold": 0.5}},
    "batches": {"ClassBalancedBatches": {"n_classes": 2, "n_samples": 8}},
    "smote": {"SMOTE": {"k_neighbors": 3}},
    "smotenc": {"SMOTENC": {"k_neighbors": 3}},
}


@pytest.fixture
def table(tmp_path):
    """table(method, …) -> a pipeline over 120 rows."""

    def write(method, weights=True, ops=(), name="weights", category=False, split=None, **expand):
        with open(tmp_path / "t.csv", "w", encoding="ascii") as file:
            file.write("x,draw,colour,y\n")
            for i in range(ROWS):
                colour = i % 7 if not category else "red" if i % 3 else "blue"
                file.write(f"{i * 0.37},{DRAW[i]},{colour},{NAMES[LABEL[i]]}\n")
        output = {"batch_size": 16, **({"weights": weights} if weights is not None else {})}
        pipeline = {"version": 1, "name": name, "seed": 5, "source": {"format": "csv", "path": "t.csv", "label": "y"},
                    "rebalance": method, "ops": list(ops), "output": output,
                    "expand": {"encode": "csv", "samples_per_shard": 50, **expand}}
        if split is not None:
            pipeline["split"] = split
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(pipeline))
        return path

    return write


def of_rows(row):
    """What the weight of a row is when it is drawn by the column: (1 / N) / (w / sum w)."""
    return ((1 / ROWS) / (DRAW[row] / DRAW.sum())).astype(np.float32)


# A row comes as often as its weight says, give or take one, so the mean of an epoch is 1, give or take this much.
COLUMN_MEAN = of_rows(np.arange(ROWS)).sum() / COLUMN_DRAWS


def expected(rows, method):
    """From the rows that were written alone, and what the source has."""
    if method is None:
        return np.ones(len(rows), np.float32)
    if method.get("WeightedSampler", {}).get("weights") == "draw":
        return of_rows(np.array([int(r["row"]) for r in rows]))
    label = np.array([NAMES.index(r["label"]) for r in rows])
    natural, drawn = np.bincount(LABEL, minlength=3) / ROWS, np.bincount(label, minlength=3) / len(rows)
    return (natural[label] / drawn[label]).astype(np.float32)


def weights_of(rows):
    return np.array([np.float32(r["weight"]) for r in rows])


# ---- every method ----

@pytest.mark.parametrize("name", METHODS)
def test_weights_of_every_method_in_shards_and_batches(table, tmp_path, start, name):
    method = METHODS[name]
    file = table(method, category=name == "smotenc")
    out = tmp_path / "out"
    good("expand", file, "-o", out, "--workers", 1)
    good("expand", file, "-o", tmp_path / "two", "--workers", 2, "--lease", 7)
    assert digests(tmp_path / "two") == digests(out)
    rows = csv_rows(out)
    written, want = weights_of(rows), expected(rows, method)
    assert list(rows[0])[-1] == "weight" and manifest(out)["weights"] is True
    assert np.allclose(written, want, rtol=3e-7), name  # the column's probabilities are differences of running sums
    if name != "weighted-column":
        assert np.array_equal(written, want)
        drawn = {r["label"] for r in rows}  # the mean is 1, less the share of classes that are not drawn
        assert np.isclose(written.mean(dtype=float), sum(np.mean(LABEL == k) for k in range(3) if NAMES[k] in drawn), rtol=1e-6)
        assert (len(drawn) < 3) == ("without" in name)
    else:
        assert abs(written.mean(dtype=float) - 1) < COLUMN_MEAN
    if name in ("smote", "smotenc"):
        assert any(r["row"] == "" and r["label"] == "c" and float(r["weight"]) == 0.25 for r in rows)  # (10/120) / (80/240)

    served = Served(start, file, tmp_path / "state", "--workers", 2)
    streamed, padded = [], 0
    with shardmill.Loader(served.name, broker=served.endpoint, timeout=60) as loader:
        assert loader.info()["weights"] == "in_batches"
        for batch in loader:
            assert batch["weight"].dtype == np.float32 and batch["weight"].shape == batch["label"].shape
            streamed.append(batch["weight"][~batch["padding"]].copy())
            assert np.all(batch["weight"][batch["padding"]] == 0)
            padded += int(batch["padding"].sum())
            last = batch.step, batch.digest, batch["weight"].copy()
        assert np.array_equal(np.concatenate(streamed), written)
        assert padded == -len(rows) % 16
    assert served.lines()[last[0]]["digest"] == last[1]
    # the same bytes from no broker at all
    replayed = good("replay", file, "--step", last[0], "--weights", tmp_path / "w.npy")
    assert json.loads(replayed.stdout)["digest"] == last[1]
    assert np.array_equal(np.load(tmp_path / "w.npy"), last[2])


def test_weights_differ_by_epoch_as_the_rows_do(table, tmp_path):
    file = table(METHODS["weighted-column"])
    seen = []
    for epoch in (0, 3):
        good("replay", file, "--epoch", epoch, "--step", 1, "--weights", tmp_path / "w.npy")
        seen.append(np.load(tmp_path / "w.npy"))
    assert not np.array_equal(*seen)


def test_every_epochs_mean_is_one(table, tmp_path, start):
    for name, tolerance in (("over", 1e-6), ("weighted-column", COLUMN_MEAN)):
        served = Served(start, table(METHODS[name], name=name), tmp_path / name, "--workers", 1)
        for world in (1, 2):
            parts = [served.reader("--epochs", 3, "--json", "--rank", r, "--world-size", world) for r in range(world)]
            told = [json.loads(p.communicate(timeout=60)[0])["epochs"] for p in parts]
            for epochs in zip(*told):
                n = [e["delivered"] for e in epochs]
                mean = sum(k * e["weights"]["mean"] for k, e in zip(n, epochs)) / sum(n)
                assert abs(mean - 1) < tolerance, (name, world, epochs)
                assert all(0 < e["weights"]["min"] <= e["weights"]["mean"] <= e["weights"]["max"] for e in epochs)
        assert re.search(r"importance weights: mean (1|0\.9|1\.0)", served.read("--epochs", 1).stdout)


def test_the_held_out_part_has_weight_1(table, tmp_path):
    file = table(METHODS["over"], split={"val": 0.25})
    good("expand", file, "--part", "val", "-o", tmp_path / "val")
    assert {r["weight"] for r in csv_rows(tmp_path / "val")} == {"1"}
    good("expand", file, "-o", tmp_path / "train")
    rows = csv_rows(tmp_path / "train")
    assert np.isclose(weights_of(rows).mean(dtype=float), 1, rtol=1e-6) and len({r["weight"] for r in rows}) == 3


# ---- what fills a place ----

def test_pictures_carry_their_weights_too(photos, tmp_path, start):
    """16 birches, 6 cedars, 2 oaks; one cedar cannot be read."""
    import torch
    import shardmill.torch
    folder = tmp_path / "photos"
    subprocess.run(["cp", "-r", photos, folder], check=True)
    broken = sorted((folder / "cedar").iterdir())[0]
    broken.write_bytes(b"no picture")
    file = tmp_path / "p.yaml"
    file.write_text(f"version: 1\nname: pets\nseed: 7\nsource: {{path: {folder}}}\nrebalance: {{RandomOverSampler: {{}}}}\n"
                    "ops: [RandomResizedCrop: {size: 32}]\noutput: {batch_size: 10, weights: true}\n"
                    "expand: {encode: png, samples_per_shard: 20}\n")
    good("expand", file, "-o", tmp_path / "out", "--max-quarantine", 1)
    want = {"birch": (16 / 24) / (1 / 3), "cedar": (6 / 24) / (1 / 3), "oak": (2 / 24) / (1 / 3)}
    written = {s["json"]["position"]: s["json"] for s in samples(tmp_path / "out")}
    assert len(written) == 48 and any("substitute_for" in j for j in written.values())
    for j in written.values():
        assert j["weight"] == pytest.approx(want[j["class"]], rel=1e-7)
    per = manifest(tmp_path / "out")["per_class"]
    assert {name: c["weight"] for name, c in per.items()} == pytest.approx(want)
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    with shardmill.torch.Loader(served.name, broker=served.endpoint, timeout=60) as loader:
        for batch in loader:
            assert batch["weight"].dtype == torch.float32
            for i, p in enumerate(batch.position.tolist()):
                assert batch["weight"][i].item() == (0 if batch["padding"][i] else np.float32(written[p]["weight"]))
    sheet = good("replay", file, "--step", 0, "-o", tmp_path / "sheet.png")
    assert "digest" in sheet.stdout and (tmp_path / "sheet.png").stat().st_size > 0


def test_features_of_pictures_are_fitted_and_written_with_weights(photos, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(f"version: 1\nname: pca\nseed: 7\nsource: {{path: {photos}}}\nrebalance: {{RepeatFactor: {{threshold: 0.3}}}}\n"
                    "ops: [{Resize: {size: [8, 8]}}, Flatten, StandardScaler, {PCA: {n_components: 3}}]\n"
                    "output: {weights: true}\nexpand: {encode: npy}\n")
    good("expand", file, "-o", tmp_path / "out")
    rows = np.load(tmp_path / "out" / "shard-000000.npy")
    assert rows.dtype.names == ("features", "label", "sample", "copy", "weight") and rows["weight"].dtype == np.float32
    natural, drawn = np.array([16, 6, 2]) / 24, np.bincount(rows["label"]) / len(rows)
    assert np.array_equal(rows["weight"], (natural / drawn)[rows["label"]].astype(np.float32))


# ---- the same bytes, whatever happens ----

def test_resumed_streams_and_other_worlds_have_the_same_weights(table, tmp_path, start):
    served = Served(start, table(METHODS["weighted-column"]), tmp_path / "state", "--workers", 2)

    def read(state=None, steps=None, **place):
        found = []
        with shardmill.Loader(served.name, broker=served.endpoint, timeout=60, **place) as loader:
            if state is not None:
                loader.load_state_dict(state)
            if steps == 0:
                return found, loader.state_dict()
            for batch in loader:
                found.append((batch.epoch, batch.step, batch.digest, batch["weight"].tolist(), batch.position.tolist()))
                if steps is not None and len(found) == steps:
                    break
            return found, loader.state_dict()

    _, begin = read(steps=0)
    whole, _ = read(begin)
    begun, state = read(begin, steps=17)
    rest, _ = read(state)
    assert begun + rest == whole and len(begun) == 17
    by_position = dict(pair for *_, weights, positions in whole for pair in zip(positions, weights) if pair[1] > 0)
    ranks = [read(begin, rank=r, world_size=2)[0] for r in range(2)]
    of_ranks = dict(pair for steps in ranks for *_, weights, positions in steps for pair in zip(positions, weights) if pair[1] > 0)
    assert of_ranks == by_position and len(by_position) == COLUMN_DRAWS


def test_a_killed_expansion_and_merged_slices_end_in_the_same_bytes(table, tmp_path, start):
    file = table(METHODS["weighted-column"], copies=10, samples_per_shard=1000)
    good("expand", file, "-o", tmp_path / "out", "--workers", 1)
    for wait in (0.2, 0.5):
        begun = start("expand", file, "-o", tmp_path / "killed", "--workers", 2, "--lease", 50, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        for pid in begun.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        begun.process.wait(timeout=30)
    good("expand", file, "-o", tmp_path / "killed", "--workers", 2)
    assert digests(tmp_path / "killed") == digests(tmp_path / "out")
    for k in (1, 2, 3):
        good("expand", file, "-o", tmp_path / "slices", "--slice", f"{k}/3", "--workers", 1)
    good("merge", tmp_path / "slices", "--verify")
    assert digests(tmp_path / "slices") == digests(tmp_path / "out")


# ---- where a user looks ----

def test_the_c_client_sees_what_is_written(table, tmp_path, start):
    file = table(METHODS["over"])
    good("expand", file, "-o", tmp_path / "out")
    written = weights_of(csv_rows(tmp_path / "out"))
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    for transport in ("shm", "tcp"):
        done = subprocess.run([BUILD / "tools" / "client_run", served.endpoint, served.name, f"transport={transport}"],
                              capture_output=True, text=True, timeout=60, check=True)
        lines = done.stdout.splitlines()
        found = np.array([np.float32(w) for line in lines if line.startswith("weight ") for w in line.split()[1:]])
        assert np.array_equal(found[:len(written)], written) and len(found) % 16 == 0 and not found[len(written):].any()
        info = json.loads(next(line for line in lines if line.startswith("info "))[5:])
        assert info["weights"] == "in_batches" and info["transport"] == transport


def test_explain_and_preview_show_weights(table, tmp_path):
    file = table(METHODS["over"])
    text, told = good("explain", file).stdout, json.loads(good("explain", "--json", file).stdout)
    line = next(line for line in text.splitlines() if line.startswith("  c  "))
    assert line.split()[7] == "0.25" and "importance weight of each sample" in text and "weights: true" in text
    assert "a batch of 16: 256 bytes with its weights" in text  # 3 columns and a weight, of 4 bytes each
    assert [c["weight"] for c in told["dataset"]["classes"]] == pytest.approx([2, 0.75, 0.25])
    assert told["out"]["batch_bytes"] == 16 * 16 and told["out"]["sample_bytes"] == 12 and told["out"]["weights"] == "float32"
    shown = next(line for line in good("preview", file).stdout.splitlines() if line.startswith("  weight "))
    assert set(shown.split()[1:]) <= {"2", "0.75", "0.25"}
    good("preview", file, "-o", tmp_path / "rows.csv")
    rows = list(csv.DictReader(open(tmp_path / "rows.csv", encoding="ascii")))
    assert all(float(r["weight"]) == {"a": 2, "b": 0.75, "c": 0.25}[r["label"]] for r in rows)
    text = good("explain", table(METHODS["weighted-column"])).stdout
    assert "each row has its own" in text


def test_documents_follow_from_the_table_of_keys():
    schema = json.loads(good("docs", "schema").stdout)
    assert schema["properties"]["output"]["properties"]["weights"]["type"] == "boolean"
    assert re.search(r"\| `weights` \| true or false \| `false` \| each sample with its importance weight", good("docs", "ops").stdout)
    assert r"\-\-weights" in good("docs", "man").stdout and "--weights" in good("docs", "bash").stdout
    assert "--weights" in good("replay", "--help").stdout


def test_what_is_no_truth_value_is_refused_at_its_place(table):
    for value in (3, "perhaps", None, [True]):
        file = table(METHODS["over"], weights=True)
        file.write_text(file.read_text().replace('"weights": true', f'"weights": {json.dumps(value)}'))
        done = run("check", file)
        assert done.returncode == 2 and "'weights'" in done.stderr and ":1:" in done.stderr, done.stderr


# ---- without the key ----

def test_without_the_key_nothing_has_changed(tmp_path):
    """Digests of the version that knew no weights."""
    with open(tmp_path / "t.csv", "w", encoding="ascii") as file:
        file.write("x,w,y\n")
        for i in range(60):
            file.write(f"{i * 0.5},{(i % 5) * 0.5},{'c' if i % 12 == 5 else 'b' if i % 4 == 2 else 'a'}\n")
    path = tmp_path / "p.yaml"
    text = ("version: 1\nname: pinned\nseed: 5\nsource: {format: csv, path: t.csv, label: y}\nrebalance: {RandomOverSampler: {}}\n"
            "output: {batch_size: 16}\nexpand: {encode: csv, samples_per_shard: 1000}\n")
    for name, line in (("p", text), ("off", text.replace("batch_size: 16", "batch_size: 16, weights: false"))):
        path.write_text(line)
        for step, digest in ((0, "048e26bd456482e853b42f471779558b"), (3, "d5e43d0d12c85a8edcab2026131dc1be"),
                             (7, "d786851d6b344baf365d484fd8beb85d")):
            assert json.loads(good("replay", path, "--step", step).stdout)["digest"] == digest
        assert json.loads(good("check", "--json", path).stdout)[0]["pipeline_digest"] == "8bf263ddcd4b13eb18f0e1665b6157a2"
        good("expand", path, "-o", tmp_path / name, "--workers", 1)
        shard = (tmp_path / name / "shard-000000.csv").read_bytes()
        assert hashlib.sha256(shard).hexdigest() == "a1b0825c1d86a8a1cc73cc6e4efc8b9fb976eae139e2e8898e25b83e79047f1a"
        assert "weight" not in (tmp_path / name / "manifest.json").read_text()
    refused = run("replay", path, "--step", 0, "--weights", tmp_path / "w.npy")
    assert refused.returncode == 2 and "output: {weights: true}" in refused.stderr and not (tmp_path / "w.npy").exists()


def test_a_job_without_weights_gives_its_classes_or_refuses(table, tmp_path, start):
    served = Served(start, table(METHODS["over"], weights=None), tmp_path / "state", "--workers", 1)
    with shardmill.Loader(served.name, broker=served.endpoint, timeout=60, weights=True) as loader:
        assert loader.info()["weights"] == "by_class"
        batch = next(iter(loader))
        assert np.array_equal(batch["weight"], np.array([2, 0.75, 0.25], np.float32)[batch["label"]])
    with shardmill.Loader(served.name, broker=served.endpoint, timeout=60) as loader:
        assert "weight" not in next(iter(loader))
    column = Served(start, table(METHODS["weighted-column"], weights=None, name="column"), tmp_path / "column", "--workers", 1)
    with shardmill.Loader(column.name, broker=column.endpoint, timeout=60, weights=True) as loader:
        with pytest.raises(shardmill.ShardmillError, match=r"output: \{weights: true\}"):
            next(iter(loader))
    with shardmill.Loader(column.name, broker=column.endpoint, timeout=60) as loader:
        assert loader.info()["weights"] == "by_sample" and "weight" not in next(iter(loader))
