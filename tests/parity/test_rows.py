"""Row ops against scikit-learn, on the real tables that it ships: float64 to 1e-12, float32 to 1e-6, PCA's components to 1e-8."""
import os
import pathlib
import subprocess

import numpy as np
import pytest

datasets = pytest.importorskip("sklearn.datasets")
from sklearn import cluster, decomposition, impute, preprocessing  # noqa: E402

RUN = pathlib.Path(os.environ.get("BUILD", pathlib.Path(__file__).parents[2] / "build")) / "tools" / "rows_run"
TABLES = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer,
          "digits": datasets.load_digits}
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-6}


@pytest.fixture
def run(tmp_path):
    """run(ops, X) -> (what comes out, [what each op that learns has learned]); ops as lines of YAML."""

    def rows_run(ops, X, check=True, seed=3):
        pipeline, source, out, kept = (tmp_path / name for name in ("p.yaml", "in.npy", "out.npy", "artifacts"))
        lines = "".join(f"  - {op}\n" for op in ops)
        pipeline.write_text(f"version: 1\nseed: {seed}\nsource: {{format: npy, path: x}}\nops:\n{lines}")
        np.save(source, np.ascontiguousarray(X))
        done = subprocess.run([RUN, pipeline, source, out, kept], capture_output=True, text=True)
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        learned = [dict(np.load(kept / f"{line.split()[1]}.npz")) for line in done.stdout.splitlines()
                   if not line.startswith("bad row")]
        return np.load(out), learned

    return rows_run


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]().data.astype(np.float64)


def holed(X):
    """One cell in ten is missing."""
    X = X.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    return X


def assert_close(ours, theirs, dtype):
    assert ours.shape == theirs.shape and ours.dtype == dtype
    assert (np.isnan(ours) == np.isnan(theirs)).all()
    assert np.nanmax(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))) <= TOLERANCE[dtype]


CHAINS = {
    "StandardScaler": preprocessing.StandardScaler(),
    "StandardScaler: {with_mean: false}": preprocessing.StandardScaler(with_mean=False),
    "StandardScaler: {with_std: false}": preprocessing.StandardScaler(with_std=False),
    "MinMaxScaler": preprocessing.MinMaxScaler(),
    "MinMaxScaler: {feature_range: [-1, 1]}": preprocessing.MinMaxScaler(feature_range=(-1, 1)),
    "RobustScaler": preprocessing.RobustScaler(),
    "RobustScaler: {quantile_range: [10, 90]}": preprocessing.RobustScaler(quantile_range=(10, 90)),
    "RobustScaler: {with_centering: false}": preprocessing.RobustScaler(with_centering=False),
    "SimpleImputer": impute.SimpleImputer(),
    "SimpleImputer: {strategy: median}": impute.SimpleImputer(strategy="median"),
    "SimpleImputer: {strategy: constant, fill_value: -7}": impute.SimpleImputer(strategy="constant", fill_value=-7),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("op", CHAINS)
def test_scalers_and_imputers_equal_scikit_learns(run, table, op, dtype):
    X = holed(table).astype(dtype)
    assert_close(run([op], X)[0], CHAINS[op].fit_transform(X).astype(dtype), dtype)


def test_a_constant_column_is_only_shifted(run):
    X = np.column_stack([np.full(100, 7.3), np.arange(100.0), np.zeros(100)])
    for op, theirs in (("StandardScaler", preprocessing.StandardScaler()), ("MinMaxScaler", preprocessing.MinMaxScaler()),
                       ("RobustScaler", preprocessing.RobustScaler())):
        assert_close(run([op], X)[0], theirs.fit_transform(X), np.float64)


def test_a_column_without_a_value_is_named(run):
    X = np.arange(30.0).reshape(10, 3)
    X[:, 1] = np.nan
    for op in ("StandardScaler", "MinMaxScaler", "RobustScaler", "SimpleImputer", "SimpleImputer: {strategy: median}"):
        done = run([op], X, check=False)
        assert done.returncode == 1 and "'x1' has no value in 10 rows" in done.stderr, done.stderr


@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_an_empty_column_that_is_kept_is_zero(run, table, strategy):
    X = holed(table)
    X[:, 1] = np.nan
    for indicator in (False, True):
        theirs = impute.SimpleImputer(strategy=strategy, keep_empty_features=True, add_indicator=indicator).fit_transform(X)
        op = f"SimpleImputer: {{strategy: {strategy}, keep_empty_features: true, add_indicator: {str(indicator).lower()}}}"
        assert_close(run([op], X)[0], theirs, np.float64)


def signed(components):
    """scikit-learn >= 1.5: the largest entry of each component is positive."""
    at = np.argmax(np.abs(components), axis=1)
    return components * np.sign(components[np.arange(len(at)), at])[:, None]


def test_pca_equals_scikit_learns(run, table):
    X = preprocessing.StandardScaler().fit_transform(table)
    theirs = decomposition.PCA(svd_solver="full").fit(X)
    ours, [learned] = run(["PCA"], X)
    clear = theirs.explained_variance_ratio_ > 1e-6  # directions without variance are anybody's
    components = signed(theirs.components_)
    assert np.abs(learned["components_"] - components)[clear].max() <= 1e-8
    assert np.abs(learned["explained_variance_"] - theirs.explained_variance_).max() <= 1e-10
    assert np.abs(learned["explained_variance_ratio_"] - theirs.explained_variance_ratio_).max() <= 1e-10
    assert np.abs(learned["mean_"] - theirs.mean_).max() <= 1e-12
    assert np.abs(learned["singular_values_"] - theirs.singular_values_)[clear].max() <= 1e-8
    assert np.abs(ours - (X - theirs.mean_) @ components.T)[:, clear].max() <= 1e-7


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_share_of_the_variance_keeps_as_many_components(run, table, share):
    X = preprocessing.StandardScaler().fit_transform(table)
    want = decomposition.PCA(share, svd_solver="full").fit(X).n_components_
    assert run([f"PCA: {{n_components: {share}}}"], X)[0].shape[1] == want


def test_randomized_without_a_number_keeps_all_components_and_a_share_of_one_is_refused(run):
    X = np.random.default_rng(4).normal(size=(200, 19)) * np.linspace(1, 3, 19)
    theirs = decomposition.PCA(svd_solver="randomized", random_state=0).fit(X)
    ours, [learned] = run(["PCA: {svd_solver: randomized}"], X)
    assert ours.shape == (200, theirs.n_components_)
    assert np.abs(learned["explained_variance_"] - theirs.explained_variance_).max() <= 1e-9
    for wrong in (1.0, 2.0):
        with pytest.raises(ValueError):
            decomposition.PCA(wrong).fit(X)
        assert "n_components" in run([f"PCA: {{n_components: {wrong}}}"], X, check=False).stderr


@pytest.mark.parametrize("solver", ["auto", "randomized"])
def test_pca_of_numbers_whose_squares_overflow_names_the_column(run, solver):
    X = np.random.default_rng(4).normal(size=(60, 4)) * [1, 1, 1e160, 1]
    for at, fits in ((1e160, False), (1e140, True)):
        X[:, 2] = np.random.default_rng(5).normal(size=60) * at
        done = run([f"PCA: {{n_components: 2, svd_solver: {solver}}}"], X, check=False)
        if fits:
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode == 1 and "column 'x2' has numbers too large" in done.stderr, done.stderr


def test_whitening_gives_each_component_variance_one(run, table):
    X = preprocessing.StandardScaler().fit_transform(table)
    ours = run(["PCA: {n_components: 3, whiten: true}"], X)[0]
    assert np.abs(ours.var(axis=0, ddof=1) - 1).max() <= 1e-9


def test_the_randomized_way_finds_the_same_components(run, table):
    X = preprocessing.StandardScaler().fit_transform(table)
    exact = run(["PCA: {n_components: 3}"], X)[1][0]
    ours = run(["PCA: {n_components: 3, svd_solver: randomized, iterated_power: 20}"], X)[1][0]
    assert np.abs(ours["explained_variance_"] - exact["explained_variance_"]).max() <= 1e-6
    assert np.abs(ours["components_"] - exact["components_"]).max() <= 1e-4


def test_pca_in_float32_is_near_float64(run, table):
    X = preprocessing.StandardScaler().fit_transform(table)
    ours, theirs = (run(["PCA: {n_components: 3}"], X.astype(dtype))[0] for dtype in (np.float32, np.float64))
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()


def test_pca_says_what_it_cannot_use(run):
    X = np.random.default_rng(1).normal(size=(20, 4))
    X[3, 2] = np.nan
    done = run(["PCA"], X, check=False)
    assert "'x2' has missing or infinite cells (1 in all" in done.stderr
    assert "at most 4" in run(["PCA: {n_components: 9}"], np.ones((20, 4)), check=False).stderr
    assert "no variance" in run(["PCA"], np.ones((20, 4)), check=False).stderr


def test_a_chain_learns_each_op_from_what_comes_before_it(run, table):
    X = holed(table)
    ours = run(["SimpleImputer", "StandardScaler", "PCA: {n_components: 2}"], X)[0]
    filled = preprocessing.StandardScaler().fit_transform(impute.SimpleImputer().fit_transform(X))
    theirs = decomposition.PCA(2, svd_solver="full").fit(filled)
    assert np.abs(ours - (filled - theirs.mean_) @ signed(theirs.components_).T).max() <= 1e-8


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("clusters", [3, 10])
def test_kmeans_is_as_near_as_scikit_learns(run, table, clusters, dtype):
    X = preprocessing.StandardScaler().fit_transform(table)
    labels, [learned] = run([f"KMeans: {{n_clusters: {clusters}, n_init: 10}}"], X.astype(dtype))
    theirs = cluster.KMeans(clusters, n_init=10, random_state=0).fit(X)
    squares = ((X[:, None] - learned["cluster_centers_"][None]) ** 2).sum(axis=2)
    assert learned["inertia_"][0] <= 1.01 * theirs.inertia_
    assert abs(squares.min(axis=1).sum() / learned["inertia_"][0] - 1) <= (1e-12 if dtype == np.float64 else 1e-6)
    assert labels.shape == (len(X), 1) and (labels[:, 0] == squares.argmin(axis=1)).all()


def test_kmeans_centers_are_the_means_of_their_clusters(run, table):
    X = preprocessing.StandardScaler().fit_transform(table)
    labels, [learned] = run(["KMeans: {n_clusters: 5, tol: 0, max_iter: 1000}"], X)
    means = np.array([X[labels[:, 0] == j].mean(axis=0) for j in range(5)])
    assert np.abs(means - learned["cluster_centers_"]).max() <= 1e-12


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_kmeans_distances_are_scikit_learns(run, table, dtype):
    X = preprocessing.StandardScaler().fit_transform(table)
    ours, [learned] = run(["KMeans: {n_clusters: 6, output: distances}"], X.astype(dtype))
    theirs = np.sqrt(((X[:, None] - learned["cluster_centers_"][None]) ** 2).sum(axis=2))
    assert ours.shape == theirs.shape and ours.dtype == dtype
    assert (np.abs(ours - theirs) <= (1e-12 if dtype == np.float64 else 1e-6) * np.abs(X).max() * 10).all()


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_kmeans_on_many_rows_starts_from_a_sample_and_ends_as_near(run, init):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(20, 8))[rng.integers(0, 20, 30000)] * 4 + rng.normal(size=(30000, 8))
    X = X.astype(np.float32)
    learned = run([f"KMeans: {{n_clusters: 20, init: {init}, n_init: 10}}"], X)[1][0]
    theirs = cluster.KMeans(20, init=init, n_init=10, random_state=0).fit(X)
    assert learned["inertia_"][0] <= 1.01 * theirs.inertia_


@pytest.mark.parametrize("rows", [1500, 30000])  # all of them are the sample; only some
def test_kmeans_counts_all_steps_of_the_start_that_it_kept(run, rows):
    rng = np.random.default_rng(7)
    X = rng.normal(size=(rows, 3))  # no clusters: many steps
    [learned] = run(["KMeans: {n_clusters: 12, tol: 0}"], X)[1]
    theirs = [cluster.KMeans(12, n_init=1, tol=0, random_state=s, algorithm="lloyd").fit(X[:1500]).n_iter_ for s in range(8)]
    assert learned["n_iter_"][0] >= min(theirs) / 2 > 5
    [first] = run(["KMeans: {n_clusters: 12, max_iter: 1, n_init: 1}"], X)[1]
    assert first["n_iter_"][0] == 2  # one from the start on the sample, one over all rows


def test_kmeans_gives_an_empty_cluster_the_farthest_row_and_ends_when_there_is_none(run):
    X = np.repeat(np.eye(3), 10, axis=0)
    labels, [learned] = run(["KMeans: {n_clusters: 8, init: random}"], X)
    assert learned["inertia_"][0] < 1e-20 and learned["n_iter_"][0] < 5
    assert len(set(map(tuple, np.column_stack([X, labels])))) == 3


def test_kmeans_gives_the_same_bytes_for_a_seed_and_others_for_another(run, table):
    X = preprocessing.StandardScaler().fit_transform(table)
    (a, [first]), (b, [again]), (_, [other]) = (run(["KMeans: {n_clusters: 9}"], X, seed=s) for s in (1, 1, 2))
    assert (a == b).all() and all((first[name] == again[name]).all() for name in first)
    assert (first["cluster_centers_"] != other["cluster_centers_"]).any()


def test_kmeans_says_what_it_cannot_use(run):
    X = np.random.default_rng(1).normal(size=(20, 4))
    assert "20 rows cannot make 21 clusters" in run(["KMeans: {n_clusters: 21}"], X, check=False).stderr
    wide = np.zeros((4100, 4100), np.float32)
    assert "more than 16777216 numbers" in run(["KMeans: {n_clusters: 4096}"], wide, check=False).stderr
    X[3, 2] = np.inf
    assert "'x2' has missing or infinite cells (1 in all" in run(["KMeans"], X, check=False).stderr
    assert "no column of numbers" not in run(["KMeans: {columns: [x0, x1]}"], X, check=False).stderr
    assert "no column 'y'" in run(["KMeans: {columns: [y]}"], X, check=False).stderr
