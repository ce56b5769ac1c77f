"""Rebalancing against imbalanced-learn: class counts for every strategy, SMOTE's rows on segments between neighbours, and a
two-sample test that cannot tell them from imbalanced-learn's."""
import csv
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

pytest.importorskip("imblearn")
from imblearn import over_sampling, under_sampling  # noqa: E402
from imblearn.pipeline import make_pipeline  # noqa: E402
from imblearn.utils import check_sampling_strategy  # noqa: E402
from sklearn import datasets  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.model_selection import StratifiedShuffleSplit  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

SHARDMILL = os.environ.get("SHARDMILL", pathlib.Path(__file__).parents[2] / "build" / "shardmill")


def skewed(load, keep):
    """A table of which each class keeps so many rows."""
    X, y = load(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(y == label)[:n] for label, n in enumerate(keep)])
    return X[chosen], y[chosen]


TABLES = {"iris": skewed(datasets.load_iris, [50, 23, 9]), "wine": skewed(datasets.load_wine, [20, 60, 31]),
          "breast_cancer": datasets.load_breast_cancer(return_X_y=True)}


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]


@pytest.fixture
def drawn(tmp_path):
    """drawn(X, y, method) -> the rows that an epoch consists of, as dicts; or the error."""

    def run(X, y, method, check=True, ops=(), **more):
        np.savetxt(tmp_path / "t.csv", np.column_stack([X, y]), delimiter=",", fmt="%.17g",
                   header=",".join([*(f"f{i}" for i in range(X.shape[1])), "label"]), comments="")
        source = {"format": "csv", "path": str(tmp_path / "t.csv"), "label": "label", "float64": True}
        pipeline = {"version": 1, "seed": 7, "source": source, "rebalance": method, "output": {"dtype": "float64", **more},
                    "expand": {"samples_per_shard": 100000}, "ops": list(ops)}
        (tmp_path / "p.yaml").write_text(json.dumps(pipeline))
        out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
        done = subprocess.run([SHARDMILL, "expand", tmp_path / "p.yaml", "-o", out, "--workers", "1", "--quiet"],
                              capture_output=True, text=True, timeout=120)
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        with open(out / "shard-000000.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return run


def counts(rows):
    labels, n = np.unique([int(float(row["label"])) for row in rows], return_counts=True)
    return dict(zip(labels.tolist(), n.tolist()))


def theirs(sampler, X, y):
    labels, n = np.unique(sampler.fit_resample(X, y)[1], return_counts=True)
    return dict(zip(labels.tolist(), n.tolist()))


@pytest.mark.parametrize("strategy", ["auto", "minority", "not minority", "not majority", "all"])
def test_over_sampling_counts_equal_imbalanced_learns(table, drawn, strategy):
    X, y = table
    ours = drawn(X, y, {"RandomOverSampler": {"sampling_strategy": strategy}})
    # (imbalanced-learn 0.10 documents "minority" for its over-samplers and refuses it in their constructors)
    added = check_sampling_strategy(strategy, y, "over-sampling")
    assert counts(ours) == {label: n + added.get(label, 0) for label, n in enumerate(np.bincount(y))}
    # every row of a class comes equally often, give or take one
    for label in set(y.tolist()):
        times = np.bincount([int(row["row"]) for row in ours], minlength=len(y))[y == label]
        assert times.max() - times.min() <= 1


@pytest.mark.parametrize("strategy", ["auto", "majority", "not minority", "not majority", "all"])
def test_under_sampling_counts_equal_imbalanced_learns(table, drawn, strategy):
    X, y = table
    ours = drawn(X, y, {"RandomUnderSampler": {"sampling_strategy": strategy}})
    assert counts(ours) == theirs(under_sampling.RandomUnderSampler(sampling_strategy=strategy), X, y)
    assert max(np.bincount([int(row["row"]) for row in ours])) == 1  # none comes twice


def test_a_ratio_and_a_table_of_targets_mean_the_same(drawn):
    X, y = TABLES["breast_cancer"]
    assert counts(drawn(X, y, {"RandomOverSampler": {"sampling_strategy": 0.8}})) == \
        theirs(over_sampling.RandomOverSampler(sampling_strategy=0.8), X, y)
    assert counts(drawn(X, y, {"RandomUnderSampler": {"sampling_strategy": 0.8}})) == \
        theirs(under_sampling.RandomUnderSampler(sampling_strategy=0.8), X, y)
    X, y = TABLES["wine"]
    assert counts(drawn(X, y, {"RandomOverSampler": {"sampling_strategy": {"0": 70, "2": 40}}})) == {0: 70, 1: 60, 2: 40}
    assert counts(drawn(X, y, {"RandomUnderSampler": {"sampling_strategy": {"1": 10}}})) == {0: 20, 1: 10, 2: 31}


def test_targets_that_cannot_be_are_refused_by_class_and_count(drawn):
    X, y = TABLES["wine"]
    for method, said in (({"RandomOverSampler": {"sampling_strategy": {"1": 10}}}, ("'1'", "60", "10")),
                         ({"RandomUnderSampler": {"sampling_strategy": {"0": 30}}}, ("'0'", "20", "30")),
                         ({"RandomOverSampler": {"sampling_strategy": {"9": 99}}}, ("'9'",)),
                         ({"SMOTE": {"k_neighbors": 20}}, ("'0'", "20")),
                         ({"WeightedSampler": {"weights": {"0": 0, "1": 0, "2": 0}}}, ("0",))):
        done = drawn(X, y, method, check=False)
        assert done.returncode in (1, 2) and all(word in done.stderr for word in said), (method, done.stderr)


def test_repeat_factor_counts_equal_the_formula(drawn):
    X, y = TABLES["iris"]
    n = np.bincount(y)
    factor = np.maximum(1, np.sqrt(0.4 / (n / n.sum())))
    ours = counts(drawn(X, y, {"RepeatFactor": {"threshold": 0.4}}))
    assert all(abs(ours[c] - factor[c] * n[c]) <= 0.5 + 1e-9 for c in range(3))


def test_batches_hold_as_many_of_each_class_as_is_said(drawn):
    X, y = TABLES["wine"]
    ours = drawn(X, y, {"ClassBalancedBatches": {"n_classes": 2, "n_samples": 4}}, batch_size=8)
    labels = np.array([int(float(row["label"])) for row in ours]).reshape(-1, 8)
    assert len(labels) * 8 >= len(y)
    for batch in labels:
        assert sorted(np.unique(batch, return_counts=True)[1].tolist()) == [4, 4]


@pytest.mark.parametrize("k", [3, 5])
def test_smote_rows_lie_between_a_row_and_one_of_its_neighbours(table, drawn, k):
    X, y = table
    ours = drawn(X, y, {"SMOTE": {"k_neighbors": k}})
    assert counts(ours) == theirs(over_sampling.SMOTE(k_neighbors=k), X, y)
    features = [f"f{i}" for i in range(X.shape[1])]
    seen = 0
    for label in set(y.tolist()):
        rows = np.flatnonzero(y == label)
        distance, _ = NearestNeighbors(n_neighbors=k + 1).fit(X[rows]).kneighbors(X[rows])
        reach = dict(zip(rows.tolist(), distance[:, k]))  # the k-th beside itself; equals may be in another order
        for row in ours:
            if row["parent"] == "" or int(float(row["label"])) != label:
                continue
            parent, neighbour, gap = int(row["parent"]), int(row["neighbour"]), float(row["gap"])
            assert y[parent] == y[neighbour] == label and parent != neighbour and 0 <= gap <= 1
            assert np.linalg.norm(X[parent] - X[neighbour]) <= reach[parent] * (1 + 1e-9) + 1e-12
            made = np.array([float(row[f]) for f in features])
            assert np.allclose(made, X[parent] + gap * (X[neighbour] - X[parent]), rtol=1e-12, atol=1e-12)
            seen += 1
    assert seen == len(ours) - len(y)


@pytest.fixture(params=["whole", "with missing cells"])
def patchy(table, request):
    """A table whose columns have very different widths, so that scaling changes who is near; and one with gaps."""
    X, y = table
    X = X * np.logspace(-3, 4, X.shape[1])[::-1]
    if request.param != "whole":
        X[np.random.default_rng(6).random(X.shape) < 0.1] = np.nan
    return X, y


@pytest.mark.parametrize("k", [3, 5])
def test_smote_behind_a_scaler_is_imbalanced_learns_pipeline(patchy, drawn, tmp_path, k):
    X, y = patchy
    ops = ["SimpleImputer", "StandardScaler"]
    ours = drawn(X, y, {"SMOTE": {"k_neighbors": k, "after": "StandardScaler"}}, ops=ops)
    theirs_ = make_pipeline(SimpleImputer(), StandardScaler(), over_sampling.SMOTE(k_neighbors=k, random_state=2))
    made, labels = theirs_.fit_resample(X, y)
    assert counts(ours) == dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True))))
    scaled = made[:len(y)]
    fits = json.loads(subprocess.run([SHARDMILL, "fit", tmp_path / "p.yaml", "--state", tmp_path / "state", "--json", "--quiet"],
                                     capture_output=True, text=True, check=True).stdout)["fits"]
    assert [fit["op"] for fit in fits] == [*ops, "SMOTE"]
    learned = np.load(tmp_path / "state" / "artifacts" / f"{fits[-1]['sha256']}.npz")
    near = {}
    for label in set(y.tolist()):
        rows, (first, end) = np.flatnonzero(y == label), learned["offsets"][label:label + 2]
        if first == end:
            continue
        distance, number = theirs_[-1].nn_k_.fit(scaled[rows]).kneighbors(scaled[rows])
        mine = learned["neighbours"][first:end]
        # equal but where rows lie equally near: then as near
        apart = np.linalg.norm(scaled[rows][:, None] - scaled[rows][mine], axis=-1)
        assert np.allclose(apart, distance[:, 1:], rtol=1e-9, atol=1e-12)
        lone = np.all(np.diff(distance, axis=1) > 1e-9, axis=1)
        assert lone.sum() > len(rows) / 2
        np.testing.assert_array_equal(mine[lone][:, :-1], number[lone][:, 1:-1])  # the last may tie with one beyond
        near.update(zip(rows.tolist(), rows[mine]))
    columns = [f"f{i}" for i in range(X.shape[1])]
    synthetic = [row for row in ours if row["parent"] != ""]
    assert len(synthetic) == len(ours) - len(y)
    for row in ours:
        got = np.array([float(row[c]) for c in columns])
        if row["parent"] == "":
            want = scaled[int(row["row"])]
        else:
            parent, neighbour, gap = int(row["parent"]), int(row["neighbour"]), float(row["gap"])
            assert neighbour in near[parent] and y[parent] == y[neighbour] == int(float(row["label"]))
            want = scaled[parent] + gap * (scaled[neighbour] - scaled[parent])
        assert np.allclose(got, want, rtol=1e-9, atol=1e-11)


def test_ops_behind_smote_get_its_rows_and_learn_from_the_others_alone(patchy, drawn):
    X, y = patchy
    ours = drawn(X, y, {"SMOTE": {"k_neighbors": 3, "after": "StandardScaler"}},
                 ops=["SimpleImputer", "StandardScaler", {"PCA": {"n_components": 2}}])
    scaled = StandardScaler().fit_transform(SimpleImputer().fit_transform(X))
    pca = PCA(n_components=2, svd_solver="full").fit(scaled)
    for row in ours:
        if row["parent"] == "":
            want = scaled[int(row["row"])]
        else:
            parent, neighbour = int(row["parent"]), int(row["neighbour"])
            want = scaled[parent] + float(row["gap"]) * (scaled[neighbour] - scaled[parent])
        want = pca.transform(want[None])[0]
        assert np.allclose(np.abs([float(row["pca0"]), float(row["pca1"])]), np.abs(want), rtol=1e-6, atol=1e-8)


def energy(a, b):
    def mean_distance(p, q):
        return np.sqrt(((p[:, None] - q[None]) ** 2).sum(-1)).mean()

    return 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b)


def test_nobody_can_tell_our_synthetic_rows_from_imbalanced_learns(drawn):
    X, y = TABLES["breast_cancer"]
    features = [f"f{i}" for i in range(X.shape[1])]
    ours = np.array([[float(row[f]) for f in features] for row in drawn(X, y, {"SMOTE": {}}) if row["parent"] != ""])
    other = over_sampling.SMOTE(random_state=3).fit_resample(X, y)[0][len(y):]
    scale = X.std(axis=0)
    both, n, chance = np.vstack([ours, other]) / scale, len(ours), np.random.default_rng(5)
    apart = energy(both[:n], both[n:])
    by_chance = []
    for _ in range(200):
        order = chance.permutation(len(both))
        by_chance.append(energy(both[order[:n]], both[order[n:]]))
    assert np.mean(np.array(by_chance) >= apart) > 0.01


def test_the_account_says_what_an_epoch_holds(drawn, tmp_path):
    X, y = TABLES["wine"]
    for method in ({"RandomOverSampler": {}}, {"RandomUnderSampler": {}}, {"SMOTE": {}}):
        rows = drawn(X, y, method)
        told = json.loads(subprocess.run([SHARDMILL, "explain", tmp_path / "p.yaml", "--json"], capture_output=True, text=True,
                                         check=True).stdout)["dataset"]["classes"]
        n = np.bincount(y)
        for label, c in enumerate(told):
            mine = [row for row in rows if int(float(row["label"])) == label]
            real = [row["row"] for row in mine if row.get("parent", "") == ""]
            assert (c["samples"], c["per_epoch"]) == (n[label], len(mine))
            assert (c["distinct"], c["synthetic"]) == (len(set(real)), len(mine) - len(real))
            assert c["repeated"] == c["per_epoch"] - c["distinct"] - c["synthetic"]
            shift = np.log(n[label] / n.sum()) - np.log(len(mine) / len(rows))
            assert abs(c["log_prior_shift"] - shift) < 1e-12


def smotenc_neighbours(numbers, words, k):
    """imbalanced-learn 0.14's, written down anew: within a class rows that differ in a category are median^2 farther apart, where
    median is that of the standard deviations of the class's numbers. (0.10, which may be installed, takes half of the square,
    of the smallest class for all.)"""
    weight = np.median(numbers.std(axis=0)) ** 2
    distance = ((numbers[:, None] - numbers[None]) ** 2).sum(-1) + weight * (words[:, None] != words[None]).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def test_smotenc_behind_imputers_compares_and_votes_on_what_they_leave(tmp_path):
    chance, k = np.random.default_rng(9), 4
    y = np.repeat([0, 1], [90, 40])
    numbers = chance.normal(size=(len(y), 3)) * [1, 200, 0.7]
    numbers[chance.random(numbers.shape) < 0.15] = np.nan
    words = np.column_stack([chance.choice(["ash", "ash", "elm", "fir", ""], len(y)), chance.choice(["x", "z", "z"], len(y))])
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a", "tree", "b", "mark", "c", "label"], *(
            [*("" if np.isnan(v) else repr(v) for v in n[:1]), w[0], "" if np.isnan(n[1]) else repr(n[1]), w[1],
             "" if np.isnan(n[2]) else repr(n[2]), f"k{c}"] for n, w, c in zip(numbers.tolist(), words.tolist(), y))])
    (tmp_path / "p.yaml").write_text(json.dumps({
        "version": 1, "seed": 7, "source": {"format": "csv", "path": "t.csv", "label": "label", "float64": True},
        "rebalance": {"SMOTENC": {"k_neighbors": k, "after": "StandardScaler"}},
        "ops": [{"SimpleImputer": {"columns": ["a", "b", "c"]}}, {"SimpleImputer": {"columns": ["tree"], "strategy": "most_frequent"}},
                {"StandardScaler": {"columns": ["a", "b", "c"]}}],
        "output": {"dtype": "float64"}, "expand": {"samples_per_shard": 100000}}))
    done = subprocess.run([SHARDMILL, "expand", tmp_path / "p.yaml", "-o", tmp_path / "out", "--workers", "1", "--quiet"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    scaled = StandardScaler().fit_transform(SimpleImputer().fit_transform(numbers))
    words[words == ""] = "ash"
    rows = np.flatnonzero(y == 1)
    near = dict(zip(rows.tolist(), rows[smotenc_neighbours(scaled[rows], words[rows], k)]))
    with open(tmp_path / "out" / "shard-000000.csv", newline="", encoding="utf-8") as file:
        made = [row for row in csv.DictReader(file) if row["parent"] != ""]
    assert len(made) == 50
    for row in made:
        parent, neighbour = int(row["parent"]), int(row["neighbour"])
        assert neighbour in near[parent]
        want = scaled[parent] + float(row["gap"]) * (scaled[neighbour] - scaled[parent])
        assert np.allclose([float(row[c]) for c in "abc"], want, rtol=1e-9, atol=1e-11)
        for column, word in ((0, row["tree"]), (1, row["mark"])):
            votes = words[near[parent]][:, column].tolist()
            assert votes.count(word) == max(map(votes.count, votes))


@pytest.mark.parametrize("k", [3, 5])
def test_smotenc_finds_the_neighbours_of_imbalanced_learn_0_14_and_votes_as_it_does(tmp_path, k):
    chance, sizes, spread = np.random.default_rng(8), [120, 70, 25], [1, 6, 0.2]
    y = np.repeat(np.arange(3), sizes)
    numbers = np.round(chance.normal(size=(len(y), 3)) * [1, 2, 0.7] * np.take(spread, y)[:, None], 6)
    words = np.column_stack([chance.choice(["ash", "elm", "fir", "oak"], len(y)), chance.choice(["x", "z"], len(y))])
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a", "tree", "b", "mark", "c", "label"],
                                    *([n[0], w[0], n[1], w[1], n[2], f"k{c}"] for n, w, c in zip(numbers.tolist(), words.tolist(), y))])
    (tmp_path / "p.yaml").write_text(json.dumps({
        "version": 1, "seed": 7, "source": {"format": "csv", "path": "t.csv", "label": "label", "float64": True},
        "rebalance": {"SMOTENC": {"k_neighbors": k}}, "output": {"dtype": "float64"}, "expand": {"samples_per_shard": 100000}}))

    def told(*words):
        done = subprocess.run([SHARDMILL, *words, "--quiet"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    [fit] = json.loads(told("fit", tmp_path / "p.yaml", "--state", tmp_path / "state", "--json"))["fits"]
    learned = np.load(tmp_path / "state" / "artifacts" / f"{fit['sha256']}.npz")
    assert learned["offsets"].tolist() == [0, 0, 70, 95]
    near = {}
    for label in (1, 2):
        rows = np.flatnonzero(y == label)
        want = smotenc_neighbours(numbers[rows], words[rows], k)
        np.testing.assert_array_equal(learned["neighbours"][learned["offsets"][label]:learned["offsets"][label + 1]], want)
        near.update(zip(rows.tolist(), rows[want]))
    told("expand", tmp_path / "p.yaml", "-o", tmp_path / "out", "--workers", "1")
    with open(tmp_path / "out" / "shard-000000.csv", newline="", encoding="utf-8") as file:
        ours = list(csv.DictReader(file))
    mixed = np.empty((len(y), 5), dtype=object)
    mixed[:, [0, 2, 4]], mixed[:, [1, 3]] = numbers, words
    theirs = over_sampling.SMOTENC(categorical_features=[1, 3], k_neighbors=k, random_state=0).fit_resample(mixed, y)[1]
    assert np.unique([row["label"] for row in ours], return_counts=True)[1].tolist() == np.bincount(theirs).tolist()
    made = [row for row in ours if row["parent"] != ""]
    assert len(made) == len(ours) - len(y)
    for row in made:
        parent, neighbour, gap = int(row["parent"]), int(row["neighbour"]), float(row["gap"])
        assert neighbour in near[parent]
        assert np.allclose([float(row[c]) for c in "abc"], numbers[parent] + gap * (numbers[neighbour] - numbers[parent]),
                           rtol=1e-12, atol=1e-12)
        for column, word in ((0, row["tree"]), (1, row["mark"])):
            votes = words[near[parent]][:, column].tolist()
            assert votes.count(word) == max(map(votes.count, votes))


@pytest.mark.parametrize("sizes,val", [([40, 25, 7, 3], 0.2), ([3] * 100, 0.4), ([7] * 60, 0.2), ([8] * 100, 0.2), ([5, 9, 13, 17, 31, 250], 0.15),
                                        ([999, 10, 10, 10, 2], 0.1), ([33, 33, 34], 0.5), ([7] * 11, 0.29)])
def test_a_stratified_split_holds_out_what_scikit_learn_does(tmp_path, sizes, val):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{c}\n" for i, c in enumerate(labels)))
    (tmp_path / "p.yaml").write_text(json.dumps({
        "version": 1, "source": {"format": "csv", "path": str(tmp_path / "t.csv"), "label": "y"}, "split": {"val": val},
        "expand": {"samples_per_shard": 100000}}))
    subprocess.run([SHARDMILL, "expand", tmp_path / "p.yaml", "-o", tmp_path / "out", "--part", "val", "--workers", "1", "--quiet"],
                   check=True, timeout=120)
    with open(tmp_path / "out" / "shard-000000.csv", newline="", encoding="utf-8") as file:
        ours = np.bincount([int(row["label"]) for row in csv.DictReader(file)], minlength=len(sizes))
    total = int(np.floor(val * len(labels) + 0.5))
    _, held = next(StratifiedShuffleSplit(1, test_size=total, random_state=0).split(labels[:, None], labels))
    theirs = np.bincount(labels[held], minlength=len(sizes))
    assert ours.sum() == theirs.sum() == total
    assert np.abs(ours - theirs).max() <= 1 and np.abs(ours - val * np.array(sizes)).max() < 1
