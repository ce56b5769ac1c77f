"""What a split holds out, and what is said of one that cannot be; what is said of a table that was meant otherwise than it is
read."""
import json

import numpy as np
import pytest

from conftest import csv_rows, good, run


def pipeline(tmp_path, source, rest, name="p.yaml"):
    file = tmp_path / name
    file.write_text(f"version: 1\nsource: {{{source}}}\n{rest}\nops: []\n")
    return file


def table(tmp_path, counts, name="a.csv"):
    """A table with classes of so many rows."""
    labels = [f"c{c}" for c, n in enumerate(counts) for _ in range(n)]
    (tmp_path / name).write_text("x,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    return f"path: {tmp_path / name}, format: csv, label: y"


def bad(*args):
    done = run(*args)
    assert done.returncode != 0, done.stdout
    return done.stderr


# ---- what is held out ----

@pytest.mark.parametrize("classes,rows,val", [(100, 2, 0.2), (100, 3, 0.2), (100, 8, 0.2), (500, 4, 0.1)])
def test_small_classes_give_the_share_of_the_whole(tmp_path, classes, rows, val):
    file = pipeline(tmp_path, table(tmp_path, [rows] * classes), f"split: {{val: {val}}}")
    want = round(classes * rows * val)
    assert f"{want} of them are held out" in good("explain", file).stdout
    for part, n in (("val", want), ("train", classes * rows - want)):
        good("expand", file, "-o", tmp_path / part, "--part", part, "--workers", 1)
        assert len(csv_rows(tmp_path / part)) == n
    parts = [{row["row"] for row in csv_rows(tmp_path / part)} for part in ("val", "train")]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == classes * rows


@pytest.mark.parametrize("split,says,better", [
    ("val: 0.001", "hint: val: 0.0034)", "val: 0.0034"),
    ("val: 0.1, by: x1", "there are 2 groups by 'x1', the smallest of 150: stratify: false, val: 0.5)",
     "stratify: false, val: 0.5, by: x1"),
])
def test_a_split_that_holds_out_nothing_is_refused_by_every_command(tmp_path, split, says, better):
    (tmp_path / "a.csv").write_text("x,x1,y\n" + "".join(f"{i},{i % 2},c{i % 3}\n" for i in range(300)))
    file = pipeline(tmp_path, f"path: {tmp_path}/a.csv, format: csv, label: y", f"split: {{{split}}}")
    file.write_text(file.read_text().replace("ops: []", "ops: [StandardScaler]"))
    state = ("--state", tmp_path / "state")
    for command in (("explain", file), ("fit", file, *state), ("expand", file, "-o", tmp_path / "out"),
                    ("expand", file, "-o", tmp_path / "out", "--part", "val"), ("preview", file, "-o", tmp_path / "rows.txt"),
                    ("serve", file, *state), ("submit", file, *state, "--broker", f"ipc://{tmp_path}/none")):
        said = bad(*command)
        assert "no sample is left for the val part of 300 samples" in said and says in said, (command, said)
    assert not (tmp_path / "out" / "manifest.json").exists()
    file.write_text(file.read_text().replace(split, better))
    good("expand", file, "-o", tmp_path / "out", "--workers", 1)


# ---- what is said of a table ----

def test_a_table_in_capitals_is_read(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "A.CSV").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "d" / "b.csv").write_text("x,y\n3,a\n")
    assert "dataset: 3 samples" in good("explain", pipeline(tmp_path, f"path: {tmp_path}/d, format: csv, label: y", "")).stdout


def test_a_label_that_counts_as_missing_is_told_with_what_helps(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,None\n3,a\n")
    source = f"path: {tmp_path}/a.csv, format: csv, label: y"
    said = good("explain", pipeline(tmp_path, source, "")).stdout
    assert "'None' counts as a missing cell (hint: source.missing: [])" in said
    assert "dataset: 3 samples in 2 classes" in good("explain", pipeline(tmp_path, source + ", missing: []", "")).stdout


def test_a_labels_file_that_is_not_there_is_told_by_its_own_key(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    file = pipeline(tmp_path, f"path: {tmp_path}/x.npy, format: npy, label: y.npy", "")
    said = bad("explain", file)
    assert "source.label: " in said and "a path seen from the data's folder" in said and "source.path" not in said
    np.save(tmp_path / "y.npy", np.zeros(2, np.int64))
    assert "fewer labels in 'y.npy' than rows: 2 for 3" in bad("explain", file)


@pytest.mark.parametrize("rebalance", ["", "rebalance: {RandomOverSampler: {}}"])
def test_explain_lists_the_classes_that_occur(tmp_path, rebalance):
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{i},{2019 + i % 3}\n" for i in range(30)))
    file = pipeline(tmp_path, f"path: {tmp_path}/a.csv, format: csv, label: y", rebalance)
    said = good("explain", file).stdout
    assert "dataset: 30 samples in 2022 classes, 3 of them occur, at" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  20")] == ["2019", "2020", "2021"]
    assert " more (--json" not in said
    assert len(json.loads(good("explain", file, "--json").stdout)["dataset"]["classes"]) == 2022


@pytest.mark.parametrize("label,says", [
    (lambda i: i * 7, "60 classes in 60 rows, 60 of them with one"),
    (lambda i: i % 4 / 2, "a class is called 0.5"),
    (lambda i: f"name{i}", "60 classes in 60 rows"),
    (lambda i: i % 3, None),
    (lambda i: "ab"[i % 2] + ".5", None),
])
def test_a_label_that_looks_like_a_target_is_told(tmp_path, label, says):
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{i},{label(i)}\n" for i in range(60)))
    said = good("explain", pipeline(tmp_path, f"path: {tmp_path}/a.csv, format: csv, label: y", "")).stdout
    assert ("looks like a number to predict" in said) == (says is not None)
    assert says is None or says in said


def test_the_documents_say_which_number_a_class_has():
    assert "they are the classes' numbers" in good("ops", "source").stdout
