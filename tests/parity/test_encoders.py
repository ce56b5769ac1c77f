"""Encoders and the imputer through the program, `shardmill expand` of a CSV with a held-out part, beside scikit-learn fitted on the
same training rows: names of the columns and every cell, also of categories that training had not."""
import csv
import json
import os
import pathlib
import subprocess
import tempfile
import warnings

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARDMILL = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "shardmill"
ADULT = ROOT.parent / "shared" / "data" / "tables" / "adult-train.csv"
WORDS = ["a", "b", "c", "d", "e", "f", "g"]


def expand(work, table, ops, part, label="y", missing='[""]', header="yes", float64="true", rows_may_fail=False):
    """(names of the feature columns, cells, numbers of the rows), in the order of the table."""
    file = work / "p.yaml"
    file.write_text(f"version: 1\nseed: 3\nsource: {{format: csv, path: {table}, label: {label}, missing: {missing}, header: {header}, "
                    f"float64: {float64}}}\nsplit: {{val: 0.3}}\nops:\n" + "".join(f"  - {op}\n" for op in ops) +
                    "output: {batch_size: 8, dtype: float64}\nexpand: {encode: csv, samples_per_shard: 100000}\n")
    out = pathlib.Path(tempfile.mkdtemp(dir=work)) / part
    done = subprocess.run([SHARDMILL, "expand", file, "--part", part, "-o", out, "--workers", "1", "-q"],
                          capture_output=True, text=True)
    assert done.returncode == 0 or (rows_may_fail and (out / "manifest.json").exists()), done.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    rows = []
    for shard in manifest["shards"]:
        with open(out / shard["name"], newline="") as f:
            rows += list(csv.DictReader(f))
    rows.sort(key=lambda r: int(r["row"]))
    names = manifest["columns"]
    cells = np.array([[float(r[name]) if r[name] != "" else np.nan for name in names] for r in rows])
    return names, cells, [int(r["row"]) for r in rows]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """300 rows of two columns of words, skewed, some missing, and one word that only a few rows have; (file, cells)."""
    rng = np.random.default_rng(5)
    p = np.array([40, 25, 15, 10, 5, 3, 2]) / 100
    cells = np.array([[WORDS[i] for i in rng.choice(7, 300, p=p)], [WORDS[i] for i in rng.choice(3, 300)]], dtype=object).T
    cells[rng.random((300, 2)) < 0.04] = np.nan
    cells[17, 0] = "once"
    file = tmp_path_factory.mktemp("letters") / "t.csv"
    with open(file, "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["u", "v", "n", "y"])
        for i, (u, v) in enumerate(cells):
            out.writerow(["" if u is np.nan else u, "" if v is np.nan else v, i, i % 2])
    return file, cells


OPTIONS = [dict(zip(("min_frequency", "max_categories", "drop", "handle_unknown"), values)) for values in [
    (None, None, None, "ignore"), (None, None, "first", "ignore"), (1, 5, None, "ignore"), (12, None, "first", "ignore"),
    (0.08, None, None, "ignore"), (None, 3, None, "infrequent_if_exist"), (12, 3, "first", "infrequent_if_exist"),
    (0.08, 5, None, "infrequent_if_exist"), (20, None, "if_binary", "infrequent_if_exist"), (20, 2, "if_binary", "infrequent_if_exist"),
    (1000, None, None, "infrequent_if_exist")]]


def yaml_of(value):
    return "null" if value is None else str(value)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_one_hot_columns_and_cells_are_those_of_scikit_learn(letters, tmp_path, options):
    table, cells = letters
    ours = ", ".join(f"{key}: {yaml_of(value)}" for key, value in options.items() if value is not None)
    names, train, rows = expand(tmp_path, table, [f"OneHotEncoder: {{{ours}}}", "DropColumns: {columns: [n]}"], "train")
    peer = OneHotEncoder(sparse_output=False, **options).fit(cells[rows])
    assert names == list(peer.get_feature_names_out(["u", "v"]))
    np.testing.assert_array_equal(train, peer.transform(cells[rows]))
    again, val, rows = expand(tmp_path, table, [f"OneHotEncoder: {{{ours}}}", "DropColumns: {columns: [n]}"], "val")
    assert again == names
    np.testing.assert_array_equal(val, peer.transform(cells[rows]))


def test_one_category_at_most_is_all_of_them(letters, tmp_path):
    names, train, _ = expand(tmp_path, letters[0], ["OneHotEncoder: {max_categories: 1}", "DropColumns: {columns: [n]}"], "train")
    assert names == ["u_infrequent_sklearn", "v_infrequent_sklearn"] and np.all(train == 1)  # as scikit-learn from 1.3 on


def test_rare_categories_share_the_last_number(letters, tmp_path):
    table, cells = letters
    _, train, rows = expand(tmp_path, table, ["OrdinalEncoder: {min_frequency: 12, columns: [u]}", "SelectColumns: {columns: [u]}"], "train")
    column = [w for w in cells[rows][:, 0]]
    count = {w: column.count(w) for w in column if w is not np.nan}
    frequent = sorted(w for w in count if count[w] >= 12)
    assert 0 < len(frequent) < len(count)
    want = [np.nan if w is np.nan else frequent.index(w) if w in frequent else len(frequent) for w in column]
    np.testing.assert_array_equal(train[:, 0], want)


@pytest.mark.parametrize("fill", ["missing", "bb", "A", "d"])
@pytest.mark.parametrize("encoder", ["one-hot", "ordinal"])
def test_a_constant_word_becomes_a_category_as_in_scikit_learn(letters, tmp_path, fill, encoder):
    """Before, among and behind the others, and one that the column has; missing cells are in both parts."""
    table, cells = letters
    ours, peer = {"one-hot": ("OneHotEncoder: {handle_unknown: ignore}", OneHotEncoder(sparse_output=False, handle_unknown="ignore")),
                  "ordinal": ("OrdinalEncoder: {handle_unknown: use_encoded_value, unknown_value: -1}",
                              OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))}[encoder]
    ops = [f"SimpleImputer: {{strategy: constant, fill_value: {fill}}}", ours, "DropColumns: {columns: [n]}"]
    imputer = SimpleImputer(strategy="constant", fill_value=fill, missing_values=np.nan)
    names, train, rows = expand(tmp_path, table, ops, "train")
    filled = imputer.fit_transform(cells[rows])
    want = peer.fit_transform(filled)
    if encoder == "one-hot":
        assert names == list(peer.get_feature_names_out(["u", "v"])) and f"u_{fill}" in names
    assert fill in peer.categories_[0] and fill in peer.categories_[1]
    np.testing.assert_array_equal(train, want)
    _, val, rows = expand(tmp_path, table, ops, "val")
    np.testing.assert_array_equal(val, peer.transform(imputer.transform(cells[rows])))


@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_indicators_of_what_was_missing_are_those_of_scikit_learn(tmp_path, strategy):
    rng = np.random.default_rng(6)
    x = np.round(rng.normal(size=(400, 4)) * 10, 3)
    x[rng.random((400, 4)) < [0.1, 0, 0.3, 0]] = np.nan
    table = tmp_path / "t.csv"
    with open(table, "w") as f:
        f.write("a,b,c,d,y\n")
        for i, row in enumerate(x):
            f.write(",".join("" if np.isnan(v) else repr(v) for v in row.tolist()) + f",{i % 2}\n")
    op = f"SimpleImputer: {{strategy: {strategy}, add_indicator: true}}"
    names, train, rows = expand(tmp_path, table, [op], "train")
    peer = SimpleImputer(strategy=strategy, add_indicator=True).fit(x[rows])
    assert names == ["a", "b", "c", "d", "missingindicator_a", "missingindicator_c"]
    np.testing.assert_allclose(train, peer.transform(x[rows]), rtol=1e-12, atol=1e-12)
    names, val, rows = expand(tmp_path, table, [op], "val")
    np.testing.assert_allclose(val, peer.transform(x[rows]), rtol=1e-12, atol=1e-12)


def test_the_most_frequent_number_is_scikit_learns_and_too_many_are_refused(tmp_path):
    rng = np.random.default_rng(8)
    x = np.column_stack([rng.integers(0, 9, 500), rng.integers(-2, 3, 500) / 4, rng.normal(size=500)]).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    table = tmp_path / "t.csv"
    with open(table, "w") as f:
        f.write("a,b,c,y\n")
        for i, row in enumerate(x):
            f.write(",".join("" if np.isnan(v) else repr(v) for v in row.tolist()) + f",{i % 2}\n")
    names, train, rows = expand(tmp_path, table, ["SimpleImputer: {strategy: most_frequent, columns: [b, a, c], add_indicator: true}"],
                                "train")
    peer = SimpleImputer(strategy="most_frequent", add_indicator=True).fit(x[rows])
    assert names == ["a", "b", "c", "missingindicator_a", "missingindicator_b", "missingindicator_c"]
    np.testing.assert_array_equal(train, peer.transform(x[rows]))
    with open(table, "w") as f:
        f.write("a,b,y\n" + "".join(f"{i},{i % 5},{i % 2}\n" for i in range(3000)))
    with pytest.raises(AssertionError, match="column 'a' has more than 1024 different numbers"):
        expand(tmp_path, table, ["SimpleImputer: {strategy: most_frequent, columns: [a]}"], "train")


@pytest.mark.skipif(not ADULT.is_file(), reason="no real table beside the checkout")
def test_a_real_table_of_people_comes_out_as_scikit_learn_has_it(tmp_path):
    with open(ADULT, newline="") as f:
        cells = [[w.strip() for w in row] for row in csv.reader(f) if len(row) == 15]
    table = tmp_path / "adult.csv"
    with open(table, "w", newline="") as f:
        csv.writer(f).writerows(cells)
    words = [1, 3, 5, 6, 7, 8, 9, 13]
    columns = ", ".join(f"x{k}" for k in words)
    ops = ["OneHotEncoder: {min_frequency: 0.01, handle_unknown: infrequent_if_exist}", "StandardScaler"]
    names, train, rows = expand(tmp_path, table, ops, "train", label='"14"', missing='["?"]', header="no")
    x = np.array(cells, dtype=object)[:, words]
    x[x == "?"] = np.nan
    peer = OneHotEncoder(sparse_output=False, min_frequency=0.01, handle_unknown="infrequent_if_exist").fit(x[rows])
    want = peer.get_feature_names_out([f"x{k}" for k in words])
    assert names[-len(want):] == list(want), columns
    hot = peer.transform(x[rows])
    scaled = (hot - hot.mean(0)) / hot.std(0)
    np.testing.assert_allclose(train[:, -len(want):], scaled, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=["made", "adult"])
def words(request):
    """Columns of words, a number behind them: many rows of few categories, few rows of many, missing cells."""
    if request.param == "made":
        rng = np.random.default_rng(4)
        towns = [f"t{k:02}" for k in rng.zipf(1.5, 600) % 60]
        return ("pet", "sex", "town"), np.array([rng.choice(["cat", "dog", "emu", "fox", ""], 600, p=[.5, .3, .1, .05, .05]),
                                rng.choice(["f", "m"], 600), towns]).T.astype(object)
    if not ADULT.exists():
        pytest.skip("no real tables here")
    rows = [line.split(", ") for line in ADULT.read_text().splitlines() if line.count(",") == 14][:6000]
    return ("work", "education", "country"), np.array(rows)[:, [1, 3, 13]].astype(object)


@pytest.fixture
def expand_words(tmp_path):
    """expand_words(names, cells, ops, part) -> (columns, matrix, row numbers) of one part of a split of the table."""

    def run(names, cells, ops, part="train"):
        table = tmp_path / "words.csv"
        lines = [",".join((*names, "x", "kind"))]
        lines += [",".join((*row, str(i / 4), "ab"[i % 2])) for i, row in enumerate(cells)]
        table.write_text("\n".join(lines) + "\n")
        columns, matrix, rows = expand(tmp_path, table, ops, part, label="kind", rows_may_fail=True)
        return columns, matrix, np.array(rows)

    return run


def as_theirs(cells):
    """A missing cell is nan among strings; scikit-learn sorts it last."""
    cells = cells.copy()
    cells[cells == ""] = np.nan
    return cells


@pytest.mark.parametrize("unknown, rule, drop", [
    ("ignore", {}, "if_binary"), ("infrequent_if_exist", {"min_frequency": 0.05}, None),
    ("ignore", {"min_frequency": 8, "max_categories": 6}, "first"), ("infrequent_if_exist", {"max_categories": 2}, None),
    ("infrequent_if_exist", {"max_categories": 2}, "if_binary")])
def test_one_hot_columns_of_both_parts_equal_scikit_learns(expand_words, words, unknown, rule, drop):
    names, cells = words
    given = {"handle_unknown": unknown, **rule, **({"drop": drop} if drop else {})}
    op = "OneHotEncoder: {" + ", ".join(f"{k}: {v}" for k, v in given.items()) + "}"
    columns, train, train_rows = expand_words(names, cells, [op])
    _, val, val_rows = expand_words(names, cells, [op], "val")
    theirs = OneHotEncoder(sparse_output=False, **given).fit(as_theirs(cells[train_rows]))
    assert columns == ["x", *theirs.get_feature_names_out(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown categories under `drop`
        for ours, rows in ((train, train_rows), (val, val_rows)):
            assert (ours[:, 1:] == theirs.transform(as_theirs(cells[rows]))).all()
            assert (ours[:, 0] == rows / 4).all()


def test_unseen_categories_of_the_held_out_part_are_left_out_or_get_their_value(expand_words, words):
    names, cells = words
    unseen = cells.copy()
    _, _, held = expand_words(names, cells, ["OrdinalEncoder"], "val")
    unseen[held[3], 0], unseen[held[5], 2] = "new", "newer"
    _, ours, rows = expand_words(names, unseen, ["OrdinalEncoder"], "val")
    given = {"handle_unknown": "use_encoded_value", "unknown_value": -1, "encoded_missing_value": -2}
    _, train, train_rows = expand_words(names, unseen, ["OrdinalEncoder: {" + ", ".join(f"{k}: {v}" for k, v in given.items()) + "}"])
    _, val, val_rows = expand_words(names, unseen, ["OrdinalEncoder: {" + ", ".join(f"{k}: {v}" for k, v in given.items()) + "}"], "val")
    theirs = OrdinalEncoder(**given).fit(as_theirs(unseen[train_rows]))
    for got, of in ((train, train_rows), (val, val_rows)):
        assert (got[:, :3] == theirs.transform(as_theirs(unseen[of]))).all()
    bad = (val[:, :3] == -1).any(axis=1)
    assert bad.sum() >= 2 and set(rows) == set(val_rows[~bad])
