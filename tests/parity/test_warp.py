"""RandomRotation and RandomAffine against torchvision on PIL images: equal bytes for nearest, bilinear and bicubic,
borders and fill included, whatever the size."""
import pytest
from conftest import assert_chain_equals_torchvision, load, some_photographs

FILTERS = ["nearest", "bilinear", "bicubic"]

ROTATIONS = [
    {"degrees": 30},
    {"degrees": [-200, 700], "fill": 90},
    {"degrees": 45, "expand": True, "fill": [255, 3, 40]},
    {"degrees": [10, 80], "center": [20, -7.5]},
    {"degrees": [-90, 90], "center": [11, 30], "expand": True},
]

AFFINES = [
    {"degrees": 0, "translate": [0.3, 0.2]},
    {"degrees": 25, "scale": [0.5, 1.9], "fill": [1, 2, 3]},
    {"degrees": [-180, 180], "shear": 30},
    {"degrees": 10, "translate": [0.1, 0.4], "scale": [0.8, 1.2], "shear": [-10, 10, -20, 20]},
    {"degrees": 0, "scale": [0.1, 4], "fill": 77},
    {"degrees": [5, 15], "shear": [3, 9], "center": [0, 40.25]},
]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("number", range(len(ROTATIONS)))
def test_rotation_of_photographs_is_pillows(engine, number, interpolation):
    op = {**ROTATIONS[number], "interpolation": interpolation}
    for seed, path in enumerate(some_photographs(6, skip=number)):
        assert_chain_equals_torchvision(engine, path, [{"RandomRotation": op}], seed=seed)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("number", range(len(AFFINES)))
def test_affine_of_photographs_is_torchvisions(engine, number, interpolation):
    op = {**AFFINES[number], "interpolation": interpolation}
    for seed, path in enumerate(some_photographs(6, skip=number)):
        assert_chain_equals_torchvision(engine, path, [{"RandomAffine": op}], seed=seed)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_warps_of_odd_sizes_are_torchvisions(engine, odd, interpolation):
    for seed, path in enumerate(odd.values()):
        op = {**ROTATIONS[seed % 2], "interpolation": interpolation, "expand": seed % 3 == 0}
        assert_chain_equals_torchvision(engine, path, [{"RandomRotation": op}], seed=seed)
        op = {**AFFINES[seed % len(AFFINES)], "interpolation": interpolation}
        assert_chain_equals_torchvision(engine, path, [{"RandomAffine": op}], seed=seed)


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("angle", [0, 90, 180, 270, 360, -90, -180, 450])
def test_quarter_turns_move_pixels_as_pillow_does(engine, odd, angle, expand):
    for name in ("odd", "square", "grey", "row"):
        op = {"degrees": [angle, angle], "expand": expand, "interpolation": "bilinear"}
        assert_chain_equals_torchvision(engine, odd[name], [{"RandomRotation": op}])


@pytest.mark.parametrize("fill", [0, 200, [17]])
def test_warps_of_grey_pictures_are_torchvisions(engine, odd, fill):
    for seed, interpolation in enumerate(FILTERS):
        rotation = {"degrees": 60, "interpolation": interpolation, "fill": fill}
        affine = {**AFFINES[3], "interpolation": interpolation, "fill": fill}
        for path in [odd["grey"], *some_photographs(1)]:
            assert_chain_equals_torchvision(engine, path, [{"RandomRotation": rotation}], mode="L", seed=seed)
            assert_chain_equals_torchvision(engine, path, [{"RandomAffine": affine}], mode="L", seed=seed)


def test_drawn_angle_shift_scale_and_shear_stay_in_their_ranges(engine, odd):
    op = {"degrees": [-20, 50], "translate": [0.25, 0.5], "scale": [0.5, 0.75], "shear": [1, 2, -8, -7]}
    width, height = load(odd["odd"]).size
    for seed in range(10):
        _, (draw,) = engine.run(odd["odd"], [{"RandomAffine": op}], seed=seed)
        assert -20 <= draw["angle"] <= 50
        assert abs(draw["translate_x"]) <= round(width * 0.25) and abs(draw["translate_y"]) <= round(height * 0.5)
        assert 0.5 <= draw["scale"] <= 0.75
        assert 1 <= draw["shear_x"] <= 2 and -8 <= draw["shear_y"] <= -7


@pytest.mark.parametrize("op, said", [
    ({"RandomRotation": {"degrees": -5}}, "degrees"),
    ({"RandomRotation": {"degrees": [9, 3]}}, "degrees"),
    ({"RandomAffine": {"degrees": 0, "translate": [0.1, 1.1]}}, "translate"),
    ({"RandomAffine": {"degrees": 0, "translate": 0.1}}, "translate"),
    ({"RandomAffine": {"degrees": 0, "scale": [0, 1]}}, "scale"),
    ({"RandomAffine": {"degrees": 0, "shear": [1, 2, 3]}}, "shear"),
    ({"RandomAffine": {"degrees": 0, "interpolation": "lanczos"}}, "interpolation"),
    ({"RandomRotation": {"degrees": 5, "fill": [1, 2]}}, "fill"),
])
def test_warps_refuse_what_torchvision_refuses(engine, odd, op, said):
    assert said in engine.refuses(odd["odd"], [op])


def test_a_colour_to_fill_grey_pictures_is_refused(engine, odd):
    for op in ({"RandomRotation": {"degrees": 5, "fill": [1, 2, 3]}}, {"RandomAffine": {"degrees": 5, "fill": [1, 2, 3]}}):
        assert "fill" in engine.refuses(odd["grey"], [op], mode="L")


def test_warps_after_normalize_are_refused_with_a_hint(engine, odd):
    normalize = {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    for op in ({"RandomRotation": {"degrees": 5}}, {"RandomAffine": {"degrees": 5}}, {"ColorJitter": {}},
               {"RandomGrayscale": {}}):
        text = engine.refuses(odd["odd"], [normalize, op], output={"dtype": "float32"})
        assert "put Normalize last" in text
