"""SMOTE and SMOTENC behind an op of the pipeline: a table with missing cells can have them, whatever runs it gives the same bytes,
and what was learned belongs to the ops before."""
import json
import os
import re
import subprocess

import numpy as np
import pytest

from conftest import SHARDMILL, csv_rows, digests, good, leftovers, manifest, run, wait_until
from stream import Served

OPS = ["SimpleImputer: {columns: [age, fare]}", "SimpleImputer: {columns: [port, sex], strategy: most_frequent}",
       "OneHotEncoder", "StandardScaler", "PCA: {n_components: 4}"]


@pytest.fixture(scope="module")
def passengers(tmp_path_factory):
    """A table like that of the Titanic: ages and ports are missing here and there."""
    path, chance = tmp_path_factory.mktemp("after") / "passengers.csv", np.random.default_rng(12)
    with open(path, "w") as file:
        file.write("age,fare,port,sex,survived\n")
        for _ in range(1500):
            survived = int(chance.random() < 0.15)
            age = "" if chance.random() < 0.2 else f"{chance.normal(30 + 8 * survived, 10):.3f}"
            fare = f"{chance.exponential(30) * (1 + survived):.3f}"
            file.write(f"{age},{fare},{chance.choice(['', 'C', 'Q', 'S'])},{chance.choice(['f', 'm'])},{survived}\n")
    return path


def write(folder, table, method="SMOTE: {k_neighbors: 5, after: StandardScaler}", ops=OPS, more="", name="p.yaml"):
    path = folder / name
    lines = "".join(f"  - {op}\n" for op in ops)
    path.write_text(f"version: 1\nname: after\nseed: 9\nsource: {{format: csv, path: {table}, label: survived}}\n"
                    f"rebalance:\n  {method}\nops:\n{lines}split: {{val: 0.1}}\noutput: {{batch_size: 24}}\n"
                    f"expand: {{samples_per_shard: 700}}\n{more}")
    return path


def fits(path, state, *more):
    return json.loads(good("fit", path, "--state", state, "--json", "--quiet", *more).stdout)["fits"]


@pytest.mark.parametrize("method", ["SMOTE: {after: StandardScaler}", "SMOTE: {after: PCA}", "SMOTENC: {after: SimpleImputer}"])
def test_the_same_shards_from_one_two_and_four_workers_and_from_slices(passengers, tmp_path, method):
    path, seen = write(tmp_path, passengers, method), []
    for workers in (1, 2, 4):
        out = tmp_path / f"out{workers}"
        good("expand", path, "-o", out, "--workers", workers, "--quiet")
        assert leftovers(out) == []
        seen.append(digests(out))
    for k in (1, 2, 3):
        good("expand", path, "-o", tmp_path / "slices", "--slice", f"{k}/3", "--workers", 1, "--quiet")
    good("merge", tmp_path / "slices", "--verify")
    seen.append(digests(tmp_path / "slices"))
    assert all(one == seen[0] for one in seen)
    m, rows = manifest(tmp_path / "out1"), csv_rows(tmp_path / "out1")
    assert m["columns"] == ["pca0", "pca1", "pca2", "pca3"] and list(rows[0])[-3:] == ["parent", "neighbour", "gap"]
    per = m["per_class"]
    assert per["1"]["planned"] == per["0"]["planned"] and per["1"]["synthetic"] == sum(r["row"] == "" for r in rows) > 800
    assert not (tmp_path / "out1" / "quarantine.jsonl").exists() or (tmp_path / "out1" / "quarantine.jsonl").read_text() == ""
    assert all(r["pca0"] != "" for r in rows)


def test_synthetic_rows_lie_between_rows_as_they_leave_when_the_op_is_the_last(passengers, tmp_path):
    path = write(tmp_path, passengers, "SMOTE: {after: StandardScaler}", OPS[:4])
    good("expand", path, "-o", tmp_path / "out", "--quiet")
    rows, columns = csv_rows(tmp_path / "out"), manifest(tmp_path / "out")["columns"]
    real = {int(r["row"]): np.array([float(r[c]) for c in columns]) for r in rows if r["row"]}
    for r in (r for r in rows if not r["row"]):
        parent, neighbour = real[int(r["parent"])], real[int(r["neighbour"])]
        assert np.allclose([float(r[c]) for c in columns], parent + float(r["gap"]) * (neighbour - parent), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("workers", [2, 4])
def test_a_search_by_workers_learns_what_one_process_does(passengers, tmp_path, workers):
    path = write(tmp_path, passengers, "SMOTENC: {after: StandardScaler}",
                 [*OPS[:2], "StandardScaler: {columns: [age, fare]}", "OneHotEncoder"])
    alone = fits(path, tmp_path / "alone", "--workers", 1)
    lock = path.with_suffix(".lock").read_bytes()
    shared = fits(path, tmp_path / "shared", "--workers", workers, "--spread", 1)
    assert [f["op"] for f in shared] == ["SimpleImputer", "SimpleImputer", "StandardScaler", "SMOTENC", "OneHotEncoder"]
    assert [f["sha256"] for f in shared] == [f["sha256"] for f in alone] and path.with_suffix(".lock").read_bytes() == lock
    assert [p.name for p in (tmp_path / "shared").iterdir() if not p.name.startswith("index-")] == ["artifacts"]


HIDDEN = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']
hides = pytest.mark.skipif(subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
                           reason="no mount namespaces here")


@hides
def test_workers_that_see_nothing_of_the_submitters_folder_search_and_make_the_same(passengers, tmp_path, start):
    """What the ops before have learned, the state of the search and its partials go through the broker."""
    path = write(tmp_path, passengers)
    expected = [f["sha256"] for f in fits(path, tmp_path / "state")]
    served = Served(start, path, tmp_path / "state", "--workers", 1)
    lines = served.lines()
    endpoint, private = f"ipc://{tmp_path}/b", tmp_path / "private"
    private.mkdir()
    start("broker", "--bind", endpoint, "--state", tmp_path / "broker", stderr=subprocess.DEVNULL)
    far = [subprocess.Popen([*HIDDEN, tmp_path / "state", SHARDMILL, "worker", "--broker", endpoint], stderr=subprocess.DEVNULL)
           for _ in range(2)]
    try:
        done = subprocess.run([*HIDDEN, private, SHARDMILL, "fit", path, "--broker", endpoint, "--state", private, "--spread", "1",
                               "--json", "--quiet"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert [f["sha256"] for f in json.loads(done.stdout)["fits"]] == expected
        done = subprocess.run([*HIDDEN, private, SHARDMILL, "submit", path, "--broker", endpoint, "--state", private],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        read = good("read", "after", "--broker", endpoint, "--digest", timeout=60)
        assert [json.loads(line) for line in read.stdout.splitlines()] == lines
        step = subprocess.run([*HIDDEN, private, SHARDMILL, "replay", "after", "--broker", endpoint, "--step", "3"],
                              capture_output=True, text=True, timeout=60, env={**os.environ, "TMPDIR": str(tmp_path)})
        assert step.returncode == 0 and json.loads(step.stdout) == lines[3], step.stderr
    finally:
        for one in far:
            one.terminate()
            one.wait(timeout=30)


def test_streams_are_the_same_for_any_workers_and_after_a_resume_and_a_replay(passengers, tmp_path, start):
    path = write(tmp_path, passengers)
    one = Served(start, path, tmp_path / "one", "--workers", 1)
    three = Served(start, path, tmp_path / "three", "--workers", 3)
    lines = one.lines("--epochs", 2)
    assert three.lines("--epochs", 2) == lines and len({line["digest"] for line in lines}) == len(lines)
    ledger = tmp_path / "ledger"
    first = three.lines("--epochs", 2, "--steps", 70, "--ledger", ledger, "--checkpoint", 1)
    assert first + three.lines("--epochs", 2, "--ledger", ledger) == lines and len(first) == 70
    for at in (0, 40, 90):
        step = ("--epoch", lines[at]["epoch"], "--step", lines[at]["step"])
        assert json.loads(good("replay", three.name, "--broker", three.endpoint, *step).stdout) == lines[at]
        assert json.loads(good("replay", path, "--state", tmp_path / "one", *step).stdout) == lines[at]


def test_a_killed_expansion_goes_on_to_the_same_bytes(passengers, tmp_path, start):
    path = write(tmp_path, passengers, more="")
    path.write_text(path.read_text().replace("samples_per_shard: 700", "samples_per_shard: 700, copies: 60"))
    good("expand", path, "-o", tmp_path / "whole", "--workers", 2, "--quiet")
    job = start("expand", path, "-o", tmp_path / "killed", "--workers", 2, "--quiet")
    wait_until(lambda: len(list((tmp_path / "killed").glob("shard-*.csv"))) > 3 or job.process.poll() is not None, what="shards")
    assert job.process.poll() is None, "the run was over before it was killed"
    job.end()
    good("expand", path, "-o", tmp_path / "killed", "--workers", 3, "--quiet")
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


def test_the_held_out_part_has_no_synthetic_row_and_goes_through_the_same_ops(passengers, tmp_path):
    path = write(tmp_path, passengers, ops=OPS[:4])
    good("expand", path, "-o", tmp_path / "val", "--part", "val", "--quiet")
    good("expand", path, "-o", tmp_path / "train", "--quiet")
    held, train = csv_rows(tmp_path / "val"), csv_rows(tmp_path / "train")
    assert len(held) == 150 and "parent" not in held[0] and not {r["row"] for r in held} & {r["row"] for r in train}
    real = np.array([[float(r["age"]), float(r["fare"])] for r in train if r["row"]])
    assert np.allclose(real.mean(axis=0), 0, atol=1e-5) and np.allclose(real.std(axis=0), 1, atol=1e-5), "fitted on these alone"


# ---- what was learned belongs to the ops before ----

def test_the_search_is_made_anew_when_an_op_before_it_changes_and_only_then(passengers, tmp_path):
    path, state = write(tmp_path, passengers), tmp_path / "state"
    first = fits(path, state)
    assert [f["op"] for f in first] == ["SimpleImputer", "SimpleImputer", "OneHotEncoder", "StandardScaler", "SMOTE", "PCA"]
    assert [f["place"] for f in first] == [0, 1, 2, 3, 5, 4]
    good("check", "--locked", path)

    def changed(before, after):
        path.write_text(path.read_text().replace(before, after))
        stale = run("check", "--locked", path)
        assert stale.returncode == 1 and "is stale" in stale.stderr, stale.stderr
        made = fits(path, state)
        good("check", "--locked", path)
        return stale.stderr, {f["op"]: f for f in made if f["fitted"]}

    said, fresh = changed("n_components: 4", "n_components: 3")  # behind it
    assert set(fresh) == {"PCA"} and "n_components is 3, was 4" in said
    said, fresh = changed("- StandardScaler", "- StandardScaler: {with_mean: false}")
    assert set(fresh) == {"StandardScaler", "SMOTE", "PCA"} and "with_mean is false, was true" in said
    said, fresh = changed("columns: [age, fare]", "columns: [age, fare], strategy: median")
    assert {"SMOTE", "StandardScaler", "PCA"} <= set(fresh) and fresh["SMOTE"]["sha256"] != first[4]["sha256"]
    said, fresh = changed("after: StandardScaler", "after: OneHotEncoder")
    assert set(fresh) == {"SMOTE"} and 'rebalance.SMOTE.after is "OneHotEncoder", was "StandardScaler"' in said


def test_a_lock_from_before_there_was_an_after_still_holds(passengers, tmp_path):
    path = write(tmp_path, passengers, "SMOTE: {k_neighbors: 3}", ["SelectColumns: {columns: [fare]}", "StandardScaler"])
    rows = [line.split(",") for line in passengers.read_text().splitlines()]
    (tmp_path / "t.csv").write_text("".join(f"{r[1]},{r[4]}\n" for r in rows))
    path.write_text(path.read_text().replace(str(passengers), "t.csv"))
    assert [f["op"] for f in fits(path, tmp_path / "state")] == ["SMOTE", "StandardScaler"]
    assert "after" not in json.loads(path.with_suffix(".lock").read_text())["pipeline"]["rebalance"]["SMOTE"]
    path.write_text(path.read_text().replace("k_neighbors: 3", "k_neighbors: 3, after: null"))
    good("check", "--locked", path)


# ---- what users see ----

def test_an_op_that_is_not_there_is_shown_at_its_place_with_the_nearest(passengers, tmp_path):
    path = write(tmp_path, passengers, "SMOTE: {k_neighbors: 5, after: StandardScalr}")
    for command in ("check", "explain", "fit"):
        done = run(command, path)
        assert done.returncode == 2, done.stderr
        first, line, caret = done.stderr.rstrip("\n").split("\n")[-3:]
        assert first.endswith("p.yaml:6:34: 'after' names 'StandardScalr', and 'ops' has no such op (hint: did you mean "
                              "'StandardScaler'?)")
        assert line == "  SMOTE: {k_neighbors: 5, after: StandardScalr}" and caret == " " * 33 + "^"


def test_what_cannot_be_compared_is_refused_with_a_way_out(passengers, tmp_path):
    for method, ops, says in (
            ("SMOTENC: {}", OPS, "as they stand in the source (hint: SimpleImputer in 'ops', and {after: SimpleImputer})"),
            ("SMOTENC: {after: StandardScaler}", ["StandardScaler: {columns: [age]}"], "(hint: SimpleImputer before it)"),
            ("SMOTE: {after: SimpleImputer}", OPS, "2 columns hold categories, 'port' first (hint: SMOTENC)"),
            ("SMOTENC: {after: OneHotEncoder}", OPS, "SMOTENC works on numbers and categories, and all")):
        path = write(tmp_path, passengers, method, ops)
        done = run("fit", path, "--state", tmp_path / "state")
        name = method.split(":")[0]
        assert done.returncode != 0 and f"p.yaml: line 6, column 3: '{name}': " in done.stderr and says in done.stderr, done.stderr


def test_pictures_are_refused_as_before(photos, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(f"version: 1\nsource: {{path: {photos}}}\nrebalance: {{SMOTE: {{after: StandardScaler}}}}\n"
                    "ops: [{Resize: {size: [8, 8]}}, Flatten, StandardScaler]\nexpand: {encode: npy}\n")
    done = run("expand", path, "-o", tmp_path / "out")
    assert done.returncode != 0 and "SMOTE makes rows between rows, and the source holds images" in done.stderr


def test_explain_and_preview_tell_where_rows_are_made(passengers, tmp_path):
    path, state = write(tmp_path, passengers), tmp_path / "state"
    before = good("explain", path, "--state", state).stdout
    assert re.search(r"StandardScaler +\? -> \? columns, is yet to be fitted\n +SMOTE makes rows between those that come out here\n"
                     r" +4 +PCA", before)
    assert "searched for 5 each behind 'StandardScaler' (line 11)" in before and "when the ops before have learned" in before
    fits(path, state)
    after = good("explain", path, "--state", state).stdout
    assert re.search(r"behind 'StandardScaler' \(line 11\), kept in .* ranges? of rows, at most .* of memory in a process", after)
    told = json.loads(good("explain", path, "--state", state, "--json").stdout)["dataset"]["neighbours"]
    assert (told["after"], told["line"], told["k"]) == ("StandardScaler", 11, 5) and 0 < told["memory_bytes"] <= 256 << 20
    text = good("preview", path, "--state", state, "--class", "1", "--samples", 12).stdout
    read, made = text.split("\n\n")[1:3]
    assert "  (synthetic rows are made behind 'StandardScaler')" in read.splitlines()
    line = next(line for line in read.splitlines() if line.startswith("  fare"))
    synthetic = len(re.findall(r"synthetic, at", read))
    assert 0 < synthetic < 12 and line.count("made later") == synthetic and "made later" not in made
    good("preview", path, "--state", state, "-o", tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 9


def test_a_synthetic_row_that_a_later_op_cannot_take_is_quarantined_and_replaced(tmp_path):
    """Two rows lie so far out that the scaler behind SMOTE makes them infinite, and with them what lies between."""
    chance = np.random.default_rng(3)
    rows = [f"{v:.3e},{i % 7},{int(i % 5 == 0)}" for i, v in enumerate(chance.normal(size=400) * 1e-9)]
    rows[100] = rows[200] = "1e38,1,1"
    (tmp_path / "t.csv").write_text("\n".join(["a,b,survived", *rows, ""]))
    path = write(tmp_path, "t.csv", "SMOTE: {k_neighbors: 2, after: SimpleImputer}", ["SimpleImputer", "RobustScaler"])
    path.write_text(path.read_text().replace("split: {val: 0.1}\n", ""))
    for workers in (1, 3):
        done = run("expand", path, "-o", tmp_path / f"out{workers}", "--workers", workers, "--quiet")
        assert done.returncode in (0, 3), done.stderr
    assert digests(tmp_path / "out1") == digests(tmp_path / "out3")
    bad = [json.loads(line) for line in (tmp_path / "out1" / "quarantine.jsonl").read_text().splitlines()]
    assert [one["row"] for one in bad] == [100, 200] and all(one["text"].endswith("'RobustScaler' makes column 'a' infinite") for one in bad)
    found = csv_rows(tmp_path / "out1")
    positions = [at for one in bad for at in one["positions"]]
    assert len(found) == 640 and len(positions) > 4 and all(np.isfinite(float(r["a"])) for r in found)
    assert not {"100", "200"} & {r[key] for r in found for key in ("row", "parent")}
    assert all(found[at]["row"] != "" for at in positions), "what fills the place is a row of the table"
