"""What the parity tests share: the engine behind a small tool, pictures real and odd, and the reference: torchvision on
PIL images, given the same drawn parameters. Each op has one entry in REFERENCE, so any chain of ops can be compared."""
import json
import os
import pathlib
import subprocess

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
import torchvision.transforms.functional as F
from torchvision.transforms import InterpolationMode

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENGINE_RUN = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "tools" / "engine_run"
PHOTOS = pathlib.Path(os.environ.get("SHARDMILL_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
STAMPS = pathlib.Path("/usr/share/tuxpaint/stamps")

torch.set_num_threads(1)


def photographs():
    """Every real picture there is: photos beside the checkout, else Debian's stamps."""
    found = sorted(p for p in PHOTOS.glob("*/*") if p.is_file()) if PHOTOS.is_dir() else []
    found = found or sorted(STAMPS.glob("animals/**/*.png"))
    assert len(found) >= 20, "no real pictures: make deps-test installs some"
    return found


def some_photographs(n, skip=0):
    """n of them, spread over all."""
    found = photographs()
    return [found[(i * len(found) // n + skip) % len(found)] for i in range(n)]


class Engine:
    """Runs chains on pictures, all in one process; everything it writes goes to one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.errors = open(folder / "stderr", "w+")
        self.process = subprocess.Popen([ENGINE_RUN, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True)

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.errors.close()

    def answer(self, image, ops, mode="RGB", source=None, output=None, flags=(), **names):
        """(path of the tensor, draws or {"error": text}); names are seed, epoch, sample, copy."""
        self.count += 1
        pipeline = {"version": 1, "name": "parity", "source": {"path": ".", "mode": mode, **(source or {})}, "ops": ops,
                    "output": {"layout": "NHWC", **(output or {})}, "expand": {"encode": "tensor"}}
        file, out = self.folder / f"{self.count}.yaml", self.folder / f"{self.count}.npy"
        file.write_text(json.dumps(pipeline))
        words = [file, image, out, "--tensor", *flags]
        for name, value in names.items():
            words += [f"--{name}", value]
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            pytest.exit(f"engine_run died on {ops} of {image}: {self.errors.read()[-2000:]}", 1)
        file.unlink()
        return out, json.loads(line)

    def run(self, image, ops, **more):
        """(pixels, draws). pixels has shape (height, width, channels), or (channels, height, width) when output asks for
        NCHW."""
        out, draws = self.answer(image, ops, **more)
        assert isinstance(draws, list), f"{ops} on {image}: {draws['error']}"
        pixels = np.load(out)
        out.unlink()
        return pixels, draws

    def refuses(self, image, ops, **more):
        """The error text of a chain that must not run."""
        _, answer = self.answer(image, ops, **more)
        assert isinstance(answer, dict), f"{ops} was not refused"
        return answer["error"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    assert ENGINE_RUN.exists(), f"{ENGINE_RUN} is not built"
    made = Engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """Name -> PNG of an unusual shape: one pixel, one row, one column, sizes that no vector divides, flat colours."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(3)
    sizes = {"pixel": (1, 1), "row": (37, 1), "column": (1, 41), "two": (2, 2), "odd": (61, 33), "wide": (211, 17),
             "tall": (13, 190), "square": (64, 64)}
    found = {}
    for name, (width, height) in sizes.items():
        found[name] = folder / f"{name}.png"
        PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(found[name])
    found["grey"] = folder / "grey.png"
    PIL.Image.fromarray(rng.integers(0, 256, (45, 52), dtype=np.uint8)).save(found["grey"])
    found["flat"] = folder / "flat.png"
    PIL.Image.new("RGB", (40, 30), (200, 31, 77)).save(found["flat"])
    return found


def load(path, mode="RGB"):
    """What PIL makes of a file, upright."""
    with PIL.Image.open(path) as image:
        return PIL.ImageOps.exif_transpose(image).convert(mode)


# ---- the reference ----

def numbers(value):
    """A colour or a padding as torchvision wants it: lists of one are numbers."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def filter_of(op, default="nearest"):
    """Of a warp. Pillow's one nearest neighbour samples at the middle of a pixel."""
    return InterpolationMode(op.get("interpolation", default))


def resize_filter_of(op):
    """Of a resize. `nearest-exact` is Pillow's nearest neighbour; `nearest` is torch's, which PIL images do not know."""
    word = op.get("interpolation", "bilinear")
    assert word != "nearest"
    return InterpolationMode("nearest" if word == "nearest-exact" else word)


def size_of(op):
    size = op["size"]
    return size if isinstance(size, list) else [size]


def pair_of(op):
    size = size_of(op)
    return size * 2 if len(size) == 1 else size


def resize(image, op, draw):
    size = op["size"]
    return F.resize(image, size, resize_filter_of(op), op.get("max_size"))


def random_crop(image, op, draw):
    height, width = pair_of(op)
    fill, mode = numbers(op.get("fill", 0)), op.get("padding_mode", "constant")
    if op.get("padding") is not None:
        image = F.pad(image, op["padding"], fill, mode)
    if op.get("pad_if_needed") and image.width < width:
        image = F.pad(image, [width - image.width, 0], fill, mode)
    if op.get("pad_if_needed") and image.height < height:
        image = F.pad(image, [0, height - image.height], fill, mode)
    return F.crop(image, draw["top"], draw["left"], height, width)


def random_resized_crop(image, op, draw):
    return F.resized_crop(image, draw["top"], draw["left"], draw["height"], draw["width"], pair_of(op),
                          resize_filter_of(op))


def random_affine(image, op, draw):
    return F.affine(image, draw["angle"], [draw["translate_x"], draw["translate_y"]], draw["scale"],
                    [draw["shear_x"], draw["shear_y"]], filter_of(op), numbers(op.get("fill", 0)), center=op.get("center"))


def random_rotation(image, op, draw):
    return F.rotate(image, draw["angle"], filter_of(op), op.get("expand", False), op.get("center"),
                    numbers(op.get("fill", 0)))


def color_jitter(image, op, draw):
    kinds = [("brightness", F.adjust_brightness), ("contrast", F.adjust_contrast),
             ("saturation", F.adjust_saturation), ("hue", F.adjust_hue)]
    for kind in draw["order"]:
        name, adjust = kinds[kind]
        if draw[name] is not None:
            image = adjust(image, draw[name])
    return image


def random_grayscale(image, op, draw):
    return F.rgb_to_grayscale(image, len(image.getbands())) if draw["gray"] else image


REFERENCE = {
    "Resize": resize,
    "CenterCrop": lambda image, op, draw: F.center_crop(image, op["size"]),
    "RandomCrop": random_crop,
    "RandomResizedCrop": random_resized_crop,
    "Pad": lambda image, op, draw: F.pad(image, op["padding"], numbers(op.get("fill", 0)),
                                         op.get("padding_mode", "constant")),
    "RandomHorizontalFlip": lambda image, op, draw: F.hflip(image) if draw["flip"] else image,
    "RandomVerticalFlip": lambda image, op, draw: F.vflip(image) if draw["flip"] else image,
    "RandomRotation": random_rotation,
    "RandomAffine": random_affine,
    "ColorJitter": color_jitter,
    "RandomGrayscale": random_grayscale,
}


def reference(image, ops, draws):
    """The chain on a PIL image with what was drawn; every draw must be used up."""
    draws = list(draws)
    image = reference_walk(image, ops, draws)
    assert not draws, f"draws of no op: {draws}"
    return image


def reference_walk(image, ops, draws):
    for step in ops:
        (name, op), = step.items()
        draw = draws.pop(0) if draws and draws[0]["op"] == name else None
        if name == "RandomApply":
            if draw["apply"]:
                image = reference_walk(image, op["transforms"], draws)
        else:
            image = REFERENCE[name](image, op or {}, draw)
    return image


def pixels_of(image):
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def assert_same(got, want, what):
    """Equal shapes, equal bytes."""
    assert got.dtype == want.dtype and got.shape == want.shape, f"{what}: {got.shape}, {want.shape} expected"
    if not np.array_equal(got, want):
        error = np.abs(got.astype(int) - want.astype(int))
        where = np.argwhere(error)
        pytest.fail(f"{what}: {(error > 0).mean():.2%} of the bytes differ, by {error.max()} at most, first at "
                    f"{where[0].tolist()}")


def assert_chain_equals_torchvision(engine, path, ops, mode="RGB", **names):
    got, draws = engine.run(path, ops, mode=mode, **names)
    want = pixels_of(reference(load(path, mode), ops, draws))
    assert_same(got, want, f"{ops} with {draws} on {path.name}")
    return got, draws
