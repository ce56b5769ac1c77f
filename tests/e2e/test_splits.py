"""What a split holds out, and what is said of one that cannot be; what is said of a table that was meant otherwise than it is
read."""
import json

import numpy as np
import pytest

from conftest import csv_rows, good, manifest, run


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
