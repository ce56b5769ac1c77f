"""Whole recipes: the fused plan against torchvision op by op, and against the same plan without fusing; and a chain's
result depends on its names (seed, epoch, sample, copy) and on nothing else."""
import numpy as np
import pytest
from conftest import assert_chain_equals_torchvision, some_photographs

RECIPES = {
    "imagenet": [{"RandomResizedCrop": {"size": 224}}, {"RandomHorizontalFlip": {"p": 0.5}}],
    "evaluation": [{"Resize": {"size": 256}}, {"CenterCrop": {"size": 224}}],
    "simclr": [{"RandomResizedCrop": {"size": 96}}, {"RandomHorizontalFlip": {}},
               {"RandomApply": {"p": 0.8, "transforms": [
                   {"ColorJitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}}]}},
               {"RandomGrayscale": {"p": 0.2}}],
    "crops of crops": [{"RandomCrop": {"size": 200, "pad_if_needed": True}}, {"CenterCrop": {"size": [150, 160]}},
                       {"RandomCrop": {"size": 100}}, {"RandomVerticalFlip": {}}, {"Pad": {"padding": 3, "fill": 8}}],
    "everything": [{"Pad": {"padding": [4, 9], "padding_mode": "reflect"}},
                   {"RandomRotation": {"degrees": 15, "interpolation": "bilinear"}}, {"RandomHorizontalFlip": {}},
                   {"RandomCrop": {"size": [180, 190], "pad_if_needed": True}},
                   {"ColorJitter": {"brightness": 0.3, "hue": 0.1}},
                   {"RandomAffine": {"degrees": 5, "translate": [0.1, 0.1], "interpolation": "bicubic"}},
                   {"Resize": {"size": [120, 77], "interpolation": "lanczos"}}, {"RandomGrayscale": {}},
                   {"RandomVerticalFlip": {}}, {"CenterCrop": {"size": 128}}],
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_torchvisions(engine, odd, name):
    for seed, path in enumerate([*some_photographs(16), odd["odd"], odd["grey"], odd["tall"]]):
        assert_chain_equals_torchvision(engine, path, RECIPES[name], seed=seed)


@pytest.mark.parametrize("name", RECIPES)
def test_fused_plan_equals_op_by_op(engine, odd, name):
    for seed, path in enumerate([*some_photographs(4, skip=1), odd["wide"]]):
        fused, draws = engine.run(path, RECIPES[name], seed=seed)
        plain, plain_draws = engine.run(path, RECIPES[name], seed=seed, flags=["--no-fuse"])
        assert draws == plain_draws and np.array_equal(fused, plain)


def test_recipe_on_grey_is_torchvisions(engine):
    for seed, path in enumerate(some_photographs(3)):
        assert_chain_equals_torchvision(engine, path, RECIPES["everything"], mode="L", seed=seed)


def test_each_name_of_a_sample_changes_its_draws_and_the_same_names_repeat(engine, odd):
    names = {"seed": 1, "epoch": 2, "sample": 3, "copy": 4}
    first = engine.run(odd["odd"], RECIPES["everything"], **names)
    again = engine.run(odd["odd"], RECIPES["everything"], **names)
    assert first[1] == again[1] and np.array_equal(first[0], again[0])
    for name in names:
        _, draws = engine.run(odd["odd"], RECIPES["everything"], **{**names, name: 9})
        assert draws != first[1], name


def test_nested_apply_is_torchvisions(engine, odd):
    inner = {"RandomApply": {"p": 0.5, "transforms": [{"RandomRotation": {"degrees": 90, "expand": True}},
                                                      {"Resize": {"size": [30, 44]}}]}}
    ops = [{"RandomApply": {"p": 0.7, "transforms": [{"RandomVerticalFlip": {}}, inner, {"Pad": {"padding": 2}}]}},
           {"ColorJitter": {"contrast": 0.5}}]
    shapes = set()
    for seed in range(24):
        got, _ = assert_chain_equals_torchvision(engine, odd["odd"], ops, seed=seed)
        shapes.add(got.shape)
    assert {(33, 61, 3), (37, 65, 3), (34, 48, 3)} <= shapes


def test_apply_does_not_leave_the_kind_of_image_to_chance(engine, odd):
    normalize = {"Normalize": {"mean": 0.5, "std": 0.5}}
    text = engine.refuses(odd["odd"], [{"RandomApply": {"transforms": [normalize]}}], output={"dtype": "float32"})
    assert "Normalize" in text and "chance" in text
