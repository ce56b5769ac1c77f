"""What leaves the chain as a tensor: layout, dtype, and Normalize against torchvision's to_tensor and normalize."""
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from conftest import load, pixels_of, some_photographs

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize("op", [IMAGENET, {"mean": 0.5, "std": 0.25}, {"mean": [0, 0, 0], "std": [1, 1, 1]}], ids=str)
def test_normalize_is_torchvisions_to_the_last_bits(engine, odd, op):
    for path in [*some_photographs(2), *odd.values()]:
        got, _ = engine.run(path, [{"Normalize": op}], output={"layout": "NCHW", "dtype": "float32"})
        mean, std = (v if isinstance(v, list) else [v] for v in (op["mean"], op["std"]))
        want = F.normalize(F.to_tensor(load(path)), mean, std).numpy()
        assert got.dtype == np.float32 and got.shape == want.shape
        assert np.abs(got - want).max() <= 4e-7 * np.abs(want).max() + 1e-12


def test_normalize_of_grey_pictures_is_torchvisions(engine, odd):
    got, _ = engine.run(odd["grey"], [{"Normalize": {"mean": 0.4, "std": 0.2}}], mode="L",
                        output={"layout": "NCHW", "dtype": "float32"})
    want = F.normalize(F.to_tensor(load(odd["grey"], "L")), [0.4], [0.2]).numpy()
    assert got.shape == want.shape and np.abs(got - want).max() <= 2e-6


def test_float16_is_float32_rounded(engine, odd):
    kinds = {d: engine.run(odd["odd"], [{"Normalize": IMAGENET}], output={"dtype": d})[0] for d in ("float32", "float16")}
    assert kinds["float16"].dtype == np.float16
    assert np.array_equal(kinds["float16"], kinds["float32"].astype(np.float16))


def test_bfloat16_is_float32_rounded_to_even(engine, odd):
    full, _ = engine.run(odd["odd"], [{"Normalize": IMAGENET}], output={"dtype": "float32"})
    half, _ = engine.run(odd["odd"], [{"Normalize": IMAGENET}], output={"dtype": "bfloat16"})
    want = torch.from_numpy(full).to(torch.bfloat16).view(torch.int16).numpy()
    assert half.dtype.itemsize == 2 and np.array_equal(half.view(np.int16), want)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_layouts_hold_the_same_pixels(engine, odd, mode):
    for path in (odd["odd"], odd["pixel"], odd["wide"]):
        last, _ = engine.run(path, [], mode=mode, output={"layout": "NHWC"})
        first, _ = engine.run(path, [], mode=mode, output={"layout": "NCHW"})
        assert np.array_equal(last, pixels_of(load(path, mode)))
        assert np.array_equal(first, last.transpose(2, 0, 1))
