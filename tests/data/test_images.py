"""Odd and broken image files: read alone, and through both loaders."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data.files import Files, blocks, encode, save_mask
from PIL import Image, ImageOps

from c2am.config import TrainConfig
from c2am.data import DataError, read_image, read_mask
from c2am.data.images import image_size, read_encoded
from c2am.data.loader import InferenceLoader, Normalization, TrainLoader

ORIENTATION = 0x0112
SIZE = (24, 32)
CPU = torch.device("cpu")
GREY_LEVELS = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
TOLERANCE = 1.01  # grey levels


def infer(files: Files, *ids: str, scale: float = 1.0) -> np.ndarray:
    """The last image as an inference batch has it, (h, w, 3) grey levels."""
    loader = InferenceLoader(
        files,
        ids,
        scales=(scale,),
        flip=False,
        batch_size=2,
        normalization=GREY_LEVELS,
        device=CPU,
    )
    return list(loader)[-1].views[0][-1, 0].movedim(0, -1).numpy()


def train(files: Files, *ids: str, masks: Callable[[str], Path] | None = None) -> np.ndarray:
    """The first crop, of 40 x 40, with the image at its own size; (40, 40, 3) grey levels."""
    config = TrainConfig(batch_size=len(ids), crop=40, flip=False)
    loader = TrainLoader(
        files, ids, config, normalization=GREY_LEVELS, seed=0, device=CPU, masks=masks
    )
    return next(loader.batches(0)).images[0].movedim(0, -1).numpy()


def without_padding(crop: np.ndarray) -> np.ndarray:
    rows, columns = crop.any((1, 2)), crop.any((0, 2))
    return crop[rows][:, columns]


@pytest.fixture
def picture(rng) -> Image.Image:
    return Image.fromarray(np.maximum(blocks(rng, *SIZE), 8))  # not black, as padding is


def sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256 + 77)


ODD = {
    "grey.jpg": lambda image: encode(image.convert("L"), "JPEG"),
    "cmyk.jpg": lambda image: encode(image.convert("CMYK"), "JPEG"),
    "progressive.jpg": lambda image: encode(image, "JPEG", progressive=True),
    "subsampled.jpg": lambda image: encode(image, "JPEG", subsampling=2),
    "sixteen.png": lambda image: encode(sixteen_bit(image), "PNG"),
    "palette.png": lambda image: encode(image.convert("P"), "PNG"),
    "rgba.png": lambda image: encode(image.convert("RGBA"), "PNG"),
    "transparent.png": lambda image: encode(image, "PNG", transparency=(8, 8, 8)),
    "grey_alpha.png": lambda image: encode(image.convert("LA"), "PNG"),
    "bits.png": lambda image: encode(image.convert("1"), "PNG"),
    "image.bmp": lambda image: encode(image, "BMP"),
    "image.webp": lambda image: encode(image, "WEBP", lossless=True),
    "image.tif": lambda image: encode(image, "TIFF", compression="tiff_lzw"),
    "wrong_name.png": lambda image: encode(image, "JPEG"),
    "trailing.jpg": lambda image: encode(image, "JPEG") + b"\0" * 5000,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_as_pillow_reads_them(files, picture, name):
    image_id = files.add_bytes(name, ODD[name](picture), SIZE)
    path = files.image_path(image_id)
    assert image_size(path) == SIZE
    with Image.open(path) as image:
        if name == "sixteen.png":
            expected = np.asarray(picture.convert("L").convert("RGB"))
        else:
            expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(path), expected)
    np.testing.assert_allclose(infer(files, image_id), expected, atol=TOLERANCE)
    if name != "bits.png":  # its black is that of the padding
        crop = without_padding(train(files, image_id))
        np.testing.assert_allclose(crop, expected, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(files, picture, kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(picture, kind, exif=exif)
    size = SIZE[::-1] if orientation >= 5 else SIZE
    image_id = files.add_bytes(f"c{orientation}.{kind.lower()}", data, size)
    path = files.image_path(image_id)
    assert image_size(path) == read_encoded(path).size == size
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(path), expected)
    assert (orientation == 1) == np.array_equal(expected, np.asarray(Image.open(path)))
    np.testing.assert_allclose(infer(files, image_id), expected, atol=TOLERANCE)
    crop = without_padding(train(files, image_id))
    np.testing.assert_allclose(crop, expected, atol=TOLERANCE)


BROKEN = {
    "truncated.jpg": lambda image: encode(image, "JPEG")[:-200],
    "headless.jpg": lambda image: encode(image, "JPEG")[30:],
    "truncated.png": lambda image: encode(image, "PNG")[:-300],
    "zero.jpg": lambda image: b"",
    "text.jpg": lambda image: b"this is not an image\n" * 50,
    "html.png": lambda image: b"<html>404 Not Found</html>",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reader", [infer, train])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(files, picture, name, reader):
    good = files.add_bytes("good.jpg", encode(picture, "JPEG"), SIZE)
    bad = files.add_bytes(name, BROKEN[name](picture), SIZE)
    with pytest.raises(DataError, match=re.escape(str(files.image_path(bad)))) as caught:
        reader(files, good, bad)
    assert str(files.image_path(good)) not in str(caught.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reader", [infer, train])
def test_a_file_that_only_the_decoder_finds_broken_is_named(files, picture, reader):
    data = bytearray(encode(picture, "JPEG"))
    table = data.index(b"\xff\xc4")
    data[table + 4 : table + 20] = b"\xff" * 16  # a Huffman table that cannot be
    good = files.add_bytes("good.jpg", encode(picture, "JPEG"), SIZE)
    bad = files.add_bytes("huffman.jpg", bytes(data), SIZE)
    assert read_encoded(files.image_path(bad)).size == SIZE
    with pytest.raises(DataError, match=re.escape(str(files.image_path(bad)))):
        reader(files, good, bad)


@pytest.mark.parametrize("reader", [infer, train])
def test_a_missing_file_is_named(files, reader):
    files.sizes["gone.jpg"] = SIZE
    with pytest.raises(DataError, match=r"gone\.jpg: no such file"):
        reader(files, "gone.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_of_one_pixel(files, kind):
    data = encode(Image.new("RGB", (1, 1), (200, 90, 30)), kind)
    image_id = files.add_bytes(f"c.{kind.lower()}", data, (1, 1))
    expected = read_image(files.image_path(image_id))
    np.testing.assert_allclose(infer(files, image_id), expected, atol=TOLERANCE)
    np.testing.assert_allclose(infer(files, image_id, scale=0.5), expected, atol=TOLERANCE)
    np.testing.assert_allclose(without_padding(train(files, image_id)), expected, atol=TOLERANCE)


def test_a_large_image(files, picture):
    large = picture.resize((5000, 4000), Image.Resampling.BILINEAR)
    image_id = files.add_bytes("c.jpg", encode(large, "JPEG"), (4000, 5000))
    plain = Image.open(files.image_path(image_id)).resize((100, 80), Image.Resampling.BICUBIC)
    found = infer(files, image_id, scale=0.02)
    np.testing.assert_allclose(found, np.asarray(plain), atol=TOLERANCE)
    assert train(files, image_id).shape == (40, 40, 3)


def test_a_mask_that_is_all_void_is_allowed(files, picture):
    image_id = files.add("c.png", np.asarray(picture), np.full(SIZE, 255, np.uint8))
    assert np.isfinite(train(files, image_id, masks=files.mask_path)).all()


def test_a_mask_of_another_size_names_both(files, picture):
    image_id = files.add("c.png", np.asarray(picture), np.zeros(SIZE[::-1], np.uint8))
    with pytest.raises(DataError) as caught:
        train(files, image_id, masks=files.mask_path)
    for text in (str(files.mask_path("c.png")), str(files.image_path("c.png")), "32 x 24"):
        assert text in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_of_all_depths_hold_indices(tmp_path, rng, bits):
    mask = rng.integers(0, 2**bits, SIZE, dtype=np.uint8)
    image = Image.fromarray(mask, "L").convert("P")
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "mask.png", bits=bits)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


def test_masks_of_other_kinds_are_refused(tmp_path, picture):
    path = tmp_path / "mask.png"
    for data in (encode(picture, "PNG"), encode(sixteen_bit(picture), "PNG"), b"", b"text"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=re.escape(str(path))):
            read_mask(path)
    save_mask(path, np.zeros((200, 300), np.uint8))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_mask(path)
    with pytest.raises(DataError, match="no such file"):
        read_mask(tmp_path / "gone.png")


def test_pixels_without_a_range_are_refused(tmp_path):
    path = tmp_path / "heights.tif"
    Image.fromarray(np.zeros(SIZE, np.float32)).save(path)
    with pytest.raises(DataError, match=r"heights\.tif.*no fixed range"):
        read_image(path)
