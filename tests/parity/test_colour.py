"""ColorJitter, RandomGrayscale and RandomApply against torchvision on PIL images: equal bytes, hue included, for each factor
alone and for all of them in every order."""
import pytest
from conftest import assert_chain_equals_torchvision, load, pixels_of, some_photographs

JITTERS = [
    {"brightness": 0.4},
    {"brightness": [1.5, 3]},
    {"contrast": 0.9},
    {"contrast": [0, 0]},
    {"saturation": 1.5},
    {"saturation": [0, 0.2]},
    {"hue": 0.5},
    {"hue": [-0.1, -0.05]},
    {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    {"brightness": [0.2, 6], "contrast": [0.1, 5], "saturation": [0, 9], "hue": 0.5},
]


@pytest.mark.parametrize("number", range(len(JITTERS)))
def test_jitter_of_photographs_is_torchvisions(engine, number):
    for seed, path in enumerate(some_photographs(8, skip=number)):
        assert_chain_equals_torchvision(engine, path, [{"ColorJitter": JITTERS[number]}], seed=seed)


def test_jitter_in_every_order_is_torchvisions(engine, odd):
    """Truncation to 8 bits after each step makes the order visible, so each of the 24 is compared."""
    orders, seed = set(), 0
    while len(orders) < 24:
        assert seed < 600, f"only {len(orders)} orders in {seed} seeds"
        _, (draw,) = assert_chain_equals_torchvision(engine, odd["odd"], [{"ColorJitter": JITTERS[9]}], seed=seed)
        orders.add(tuple(draw["order"]))
        seed += 1


def test_jitter_of_odd_sizes_is_torchvisions(engine, odd):
    for seed, path in enumerate(odd.values()):
        assert_chain_equals_torchvision(engine, path, [{"ColorJitter": JITTERS[8]}], seed=seed)


def test_jitter_of_grey_pictures_leaves_saturation_and_hue(engine, odd):
    for seed in range(3):
        for path in [odd["grey"], *some_photographs(2)]:
            assert_chain_equals_torchvision(engine, path, [{"ColorJitter": JITTERS[9]}], mode="L", seed=seed)
    got, _ = engine.run(odd["grey"], [{"ColorJitter": {"saturation": 0.9, "hue": 0.5}}], mode="L")
    assert (got == pixels_of(load(odd["grey"], "L"))).all()


def test_jitter_without_factors_changes_nothing(engine, odd):
    got, (draw,) = engine.run(odd["odd"], [{"ColorJitter": {"brightness": [1, 1], "hue": 0}}])
    assert draw["brightness"] is None and draw["hue"] is None
    assert (got == pixels_of(load(odd["odd"]))).all()


@pytest.mark.parametrize("op, said", [
    ({"hue": 0.6}, "hue"),
    ({"hue": [-0.6, 0]}, "hue"),
    ({"hue": -0.1}, "hue"),
    ({"brightness": -1}, "brightness"),
    ({"contrast": [2, 1]}, "contrast"),
    ({"saturation": [1, 2, 3]}, "saturation"),
])
def test_jitter_refuses_what_torchvision_refuses(engine, odd, op, said):
    assert said in engine.refuses(odd["odd"], [{"ColorJitter": op}])


def test_grayscale_is_torchvisions_in_colour_and_grey(engine, odd):
    for seed, path in enumerate([*some_photographs(4), *odd.values()]):
        for p in (0, 0.5, 1):
            _, (draw,) = assert_chain_equals_torchvision(engine, path, [{"RandomGrayscale": {"p": p}}], seed=seed)
            assert p == 0.5 or draw["gray"] == bool(p)
        assert_chain_equals_torchvision(engine, path, [{"RandomGrayscale": {"p": 1}}], mode="L")


def test_apply_runs_all_of_its_ops_or_none(engine, odd):
    ops = [{"RandomApply": {"p": 0.5, "transforms": [{"ColorJitter": JITTERS[8]}, {"RandomGrayscale": {"p": 0.5}},
                                                     {"RandomRotation": {"degrees": 20}}]}},
           {"RandomHorizontalFlip": {}}]
    seen = set()
    for seed in range(16):
        _, draws = assert_chain_equals_torchvision(engine, odd["odd"], ops, seed=seed)
        seen.add(draws[0]["apply"])
    assert seen == {True, False}
