"""What chance decides: ranges, rates and distributions, at fixed seeds. A bound is passed by a right generator all but once
in some ten thousand seeds, so a failure means a wrong range, a bias or draws that hang together."""
import itertools
import math

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision import transforms

PER_CHAIN = 60  # ops of a chain; the limit is 64


def collect(engine, path, op, chains=40):
    """The draws of one op, many times over: every chain holds it often, and each chain is another sample."""
    found = []
    for sample in range(chains):
        _, draws = engine.run(path, [op] * PER_CHAIN, seed=2024, sample=sample)
        found += draws
    return found


def column(draws, name):
    return np.array([d[name] for d in draws], dtype=float)


def chi_square_limit(degrees):
    """What chi-square exceeds once in ten thousand times (Wilson and Hilferty's approximation)."""
    return degrees * (1 - 2 / (9 * degrees) + 3.72 * math.sqrt(2 / (9 * degrees))) ** 3


def assert_counts(counts, what):
    counts = np.asarray(counts, dtype=float)
    expected = counts.sum() / len(counts)
    assert expected >= 20, f"{what}: too few draws for {len(counts)} bins"
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < chi_square_limit(len(counts) - 1), f"{what}: chi-square {chi:.1f} over {len(counts)} bins"


def assert_uniform(values, low, high, what, bins=20):
    assert low <= values.min() and values.max() <= high, f"{what}: {values.min()} to {values.max()}"
    assert_counts(np.histogram(values, bins, (low, high))[0], what)


def assert_whole_uniform(values, low, high, what):
    assert low <= values.min() and values.max() <= high, f"{what}: {values.min()} to {values.max()}"
    assert_counts(np.bincount((values - low).astype(int), minlength=int(high - low) + 1), what)


def assert_rate(values, p, what):
    sigma = math.sqrt(p * (1 - p) / len(values))
    assert abs(values.mean() - p) <= 4 * sigma, f"{what}: {values.mean():.4f} of {len(values)}, {p} expected"


def assert_unrelated(a, b, what):
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a)), f"{what}: correlation {np.corrcoef(a, b)[0, 1]:.3f}"


@pytest.mark.parametrize("name, field", [("RandomHorizontalFlip", "flip"), ("RandomVerticalFlip", "flip"),
                                         ("RandomGrayscale", "gray")])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_rates_are_as_asked(engine, odd, name, field, p):
    values = column(collect(engine, odd["odd"], {name: {"p": p}}), field)
    assert_rate(values, p, name)
    if p == 0.5:
        assert_unrelated(values[:-1], values[1:], "neighbours in a chain")
        assert_unrelated(values[:-PER_CHAIN], values[PER_CHAIN:], "neighbouring samples")


@pytest.mark.parametrize("name, field, p", [("RandomHorizontalFlip", "flip", 0.5), ("RandomVerticalFlip", "flip", 0.5),
                                            ("RandomGrayscale", "gray", 0.1)])
def test_rates_without_p_are_torchvisions_defaults(engine, odd, name, field, p):
    assert_rate(column(collect(engine, odd["odd"], {name: {}}, chains=20), field), p, name)


def test_apply_rate_is_as_asked(engine, odd):
    ops = [{"RandomApply": {"p": 0.3, "transforms": [{"RandomHorizontalFlip": {"p": 1}}]}}] * 30
    draws = []
    for sample in range(80):
        draws += engine.run(odd["odd"], ops, seed=5, sample=sample)[1]
    applied = column([d for d in draws if d["op"] == "RandomApply"], "apply")
    assert len(applied) == 80 * 30
    assert applied.sum() == len(draws) - len(applied)
    assert_rate(applied, 0.3, "RandomApply")


def test_rotation_angles_are_uniform(engine, odd):
    angles = column(collect(engine, odd["pixel"], {"RandomRotation": {"degrees": [-30, 50]}}), "angle")
    assert_uniform(angles, -30, 50, "angle")
    assert_unrelated(angles[:-1], angles[1:], "neighbours in a chain")
    angles = column(collect(engine, odd["pixel"], {"RandomRotation": {"degrees": 12}}), "angle")
    assert_uniform(angles, -12, 12, "angle")


def test_affine_draws_are_uniform_and_unrelated(engine, odd):
    op = {"degrees": 40, "translate": [0.2, 0.5], "scale": [0.5, 2], "shear": [-5, 5, 10, 30]}
    draws = collect(engine, odd["square"], {"RandomAffine": op})
    assert_uniform(column(draws, "angle"), -40, 40, "angle")
    assert_uniform(column(draws, "scale"), 0.5, 2, "scale")
    assert_uniform(column(draws, "shear_x"), -5, 5, "shear_x")
    assert_uniform(column(draws, "shear_y"), 10, 30, "shear_y")
    # uniform in [-12.8, 12.8] and [-32, 32], then rounded: inner numbers are equally likely
    across, down = column(draws, "translate_x"), column(draws, "translate_y")
    assert np.abs(across).max() == 13 and np.abs(down).max() == 32
    assert_whole_uniform(across[np.abs(across) <= 12], -12, 12, "translate_x")
    assert_whole_uniform(down[np.abs(down) <= 31], -31, 31, "translate_y")
    for a, b in itertools.combinations(["angle", "translate_x", "translate_y", "scale", "shear_x", "shear_y"], 2):
        assert_unrelated(column(draws, a), column(draws, b), f"{a} and {b}")


def test_jitter_factors_are_uniform_and_unrelated(engine, odd):
    op = {"brightness": 0.4, "contrast": 1.5, "saturation": [0.1, 3], "hue": 0.25}
    draws = collect(engine, odd["pixel"], {"ColorJitter": op})
    ranges = {"brightness": (0.6, 1.4), "contrast": (0, 2.5), "saturation": (0.1, 3), "hue": (-0.25, 0.25)}
    for name, (low, high) in ranges.items():
        assert_uniform(column(draws, name), low, high, name)
    for a, b in itertools.combinations(ranges, 2):
        assert_unrelated(column(draws, a), column(draws, b), f"{a} and {b}")


def test_jitter_orders_are_uniform_over_all_24(engine, odd):
    draws = collect(engine, odd["pixel"], {"ColorJitter": {"brightness": 0.1}})
    orders = {order: 0 for order in itertools.permutations(range(4))}
    for draw in draws:
        orders[tuple(draw["order"])] += 1
    assert_counts(list(orders.values()), "order")


def test_crop_places_are_uniform(engine, odd):
    op = {"size": [33, 61], "padding": [6, 9]}
    draws = collect(engine, odd["odd"], {"RandomCrop": op})
    assert_whole_uniform(column(draws, "left"), 0, 12, "left")
    assert_whole_uniform(column(draws, "top"), 0, 18, "top")
    assert_unrelated(column(draws, "left"), column(draws, "top"), "left and top")


@pytest.mark.parametrize("scale, ratio", [([0.08, 1.0], [3 / 4, 4 / 3]), ([0.5, 0.9], [0.5, 2.0])])
def test_resized_crop_windows_are_distributed_as_torchvisions(engine, tmp_path, scale, ratio):
    """Two samples, ours and torchvision's own get_params, in the same bins."""
    width, height = 120, 90
    path = tmp_path / "blank.png"
    PIL.Image.new("RGB", (width, height)).save(path)
    op = {"RandomResizedCrop": {"size": [height, width], "scale": scale, "ratio": ratio, "interpolation": "nearest-exact"}}
    ours = collect(engine, path, op)
    torch.manual_seed(77)
    blank = PIL.Image.new("RGB", (width, height))
    theirs = [dict(zip(("top", "left", "height", "width"), transforms.RandomResizedCrop.get_params(blank, scale, ratio)))
              for _ in range(3 * len(ours))]
    features = {name: (lambda d, n=name: d[n]) for name in ("top", "left", "height", "width")}
    features["area"] = lambda d: d["height"] * d["width"]
    features["ratio"] = lambda d: d["width"] / d["height"]
    for name, feature in features.items():
        a, b = (np.array([feature(d) for d in draws], dtype=float) for draws in (ours, theirs))
        edges = np.unique(np.quantile(b, np.linspace(0, 1, 13)))
        edges[0], edges[-1] = -np.inf, np.inf
        x, y = np.histogram(a, edges)[0], np.histogram(b, edges)[0]
        p, q = math.sqrt(y.sum() / x.sum()), math.sqrt(x.sum() / y.sum())
        chi = ((p * x - q * y) ** 2 / (x + y)).sum()
        assert chi < chi_square_limit(len(x) - 1), f"{name}: chi-square {chi:.1f} over {len(x)} bins"


@pytest.mark.parametrize("size", [(10, 400), (400, 10)])
def test_resized_crop_falls_back_to_the_centre_as_torchvision_does(engine, tmp_path, size):
    path = tmp_path / "long.png"
    PIL.Image.new("L", size).save(path)
    _, (draw,) = engine.run(path, [{"RandomResizedCrop": {"size": 8, "scale": [0.9, 1.0]}}])
    got = tuple(draw[n] for n in ("top", "left", "height", "width"))
    blank = PIL.Image.new("L", size)
    assert got == transforms.RandomResizedCrop.get_params(blank, [0.9, 1.0], [3 / 4, 4 / 3])
