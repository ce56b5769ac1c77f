"""Decoding against PIL: equal pixels for every kind of JPEG and PNG that datasets hold, upright by EXIF, in colour and in
grey. Every file is made from a real picture."""
import numpy as np
import PIL.Image
import pytest
from conftest import assert_same, load, pixels_of, some_photographs


@pytest.fixture(scope="module")
def photo():
    """The largest of some photographs, cut to an odd size so that JPEG's blocks do not divide it."""
    image = max((load(path) for path in some_photographs(24)), key=lambda i: min(i.size))
    assert min(image.size) > 120
    return image.crop((5, 3, 5 + min(image.width - 5, 251) // 2 * 2 - 1, 3 + min(image.height - 3, 190) // 2 * 2 - 1))


def save(image, tmp_path, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def assert_decodes_as_pillow_does(engine, path, modes=("RGB", "L"), **more):
    for mode in modes:
        got, _ = engine.run(path, [], mode=mode, **more)
        assert_same(got, pixels_of(load(path, mode)), f"{path.name} as {mode}")


def test_photographs_decode_as_pillow_does(engine):
    for path in some_photographs(16):
        assert_decodes_as_pillow_does(engine, path)


@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [35, 95])
def test_jpeg_in_colour(engine, photo, tmp_path, subsampling, progressive, quality):
    path = save(photo, tmp_path, "a.jpg", subsampling=subsampling, progressive=progressive, quality=quality)
    assert_decodes_as_pillow_does(engine, path, modes=["RGB"])


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_in_grey(engine, photo, tmp_path, progressive):
    assert_decodes_as_pillow_does(engine, save(photo.convert("L"), tmp_path, "g.jpg", progressive=progressive))


def test_jpeg_in_colour_read_as_grey(engine, photo, tmp_path):
    assert_decodes_as_pillow_does(engine, save(photo, tmp_path, "a.jpg"), modes=["L"])


def test_jpeg_in_cmyk(engine, photo, tmp_path):
    assert_decodes_as_pillow_does(engine, save(photo.convert("CMYK"), tmp_path, "c.jpg", quality=92))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpg", "png"])
def test_exif_orientations_come_upright(engine, photo, tmp_path, orientation, form):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save(photo, tmp_path, f"o.{form}", exif=exif)
    assert_decodes_as_pillow_does(engine, path, modes=["RGB"])
    got, _ = engine.run(path, [], source={"exif": False})
    with PIL.Image.open(path) as image:
        assert_same(got, pixels_of(image.convert("RGB")), f"orientation {orientation} left alone")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_crops_of_turned_photographs_are_those_of_the_upright_one(engine, photo, tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save(photo, tmp_path, "o.jpg", exif=exif)
    upright = pixels_of(load(path))
    for seed in range(4):
        got, (draw,) = engine.run(path, [{"RandomCrop": {"size": [50, 31]}}], seed=seed)
        assert_same(got, upright[draw["top"]:draw["top"] + 50, draw["left"]:draw["left"] + 31], f"crop {draw}")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
def test_windows_of_a_jpeg_equal_the_whole_decode(engine, photo, tmp_path, subsampling, progressive):
    """The decoder skips what a crop does not need; its window must not show that."""
    path = save(photo, tmp_path, "w.jpg", subsampling=subsampling, progressive=progressive)
    whole = pixels_of(load(path))
    for size in ([1, 1], [17, 40], [100, 9], [whole.shape[0], 3], [2, whole.shape[1]]):
        for seed in range(5):
            got, (draw,) = engine.run(path, [{"RandomCrop": {"size": size}}], seed=seed)
            top, left = draw["top"], draw["left"]
            assert_same(got, whole[top:top + size[0], left:left + size[1]], f"window {draw}")


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_png_of_each_mode(engine, photo, tmp_path, mode):
    image = photo.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(photo.convert("L").point(lambda v: 255 - v))
    assert_decodes_as_pillow_does(engine, save(image, tmp_path, f"{mode}.png"))


def test_png_with_a_transparent_palette_entry(engine, photo, tmp_path):
    path = save(photo.quantize(40), tmp_path, "t.png", transparency=3)
    assert_decodes_as_pillow_does(engine, path)


def test_png_of_16_bits_keeps_its_high_byte(engine, photo, tmp_path):
    """PIL clips 16-bit grey at 255 when it converts, which turns photographs white; here the high byte is the pixel."""
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 257 // 2 + 3
    path = tmp_path / "deep.png"
    PIL.Image.fromarray(deep).save(path)
    want = (deep >> 8).astype(np.uint8)
    assert_same(engine.run(path, [], mode="L")[0], want[:, :, None], "16 bits as L")
    assert_same(engine.run(path, [])[0], np.dstack([want] * 3), "16 bits as RGB")


def test_alpha_over_a_background(engine, photo, tmp_path):
    image = photo.convert("RGBA")
    image.putalpha(photo.convert("L"))
    got, _ = engine.run(save(image, tmp_path, "a.png"), [], source={"background": [200, 100, 7]})
    pixels, alpha = np.asarray(photo).astype(float), np.asarray(image)[:, :, 3:] / 255.0
    want = pixels * alpha + np.array([200, 100, 7]) * (1 - alpha)
    assert np.abs(got - want).max() <= 1


def test_lossless_webp(engine, photo, tmp_path):
    assert_decodes_as_pillow_does(engine, save(photo, tmp_path, "a.webp", lossless=True), modes=["RGB"])


@pytest.mark.parametrize("form", ["gif", "tiff"])
def test_gif_and_tiff_only_when_asked_for(engine, photo, tmp_path, form):
    path = save(photo.quantize(90) if form == "gif" else photo, tmp_path, f"a.{form}")
    assert_decodes_as_pillow_does(engine, path, modes=["RGB"], source={form: True})
    assert form in engine.refuses(path, []).lower()
