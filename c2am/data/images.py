"""Reading of image and mask files. Every error is a `DataError` that names the file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from c2am.data.dataset import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap height and width
_PNG_DEPTH, _PNG_COLOUR = 24, 25  # byte offsets in the IHDR chunk
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TAIL = 1024  # where the end marker of a whole JPEG is looked for


class EncodedImage(NamedTuple):
    """An image file that the DALI decoder reads right."""

    data: np.ndarray
    """Bytes of the file, `(n,)` uint8."""
    size: tuple[int, int]
    """(H, W) as displayed."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from error


def _displayed_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    swapped = image.getexif().get(_ORIENTATION, 1) >= 5
    return (width, height) if swapped else (height, width)


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) in pixels as displayed, from the header alone."""
    with _reading(path), Image.open(path) as image:
        return _displayed_size(image)


def _to_rgb(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(high_byte[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"{image.mode!r} pixels have no fixed range; 8 or 16 bits are expected")
    return np.asarray(image.convert("RGB"))


def read_image(path: Path) -> np.ndarray:
    """The image as displayed, `(H, W, 3)` uint8 RGB. Transparency is dropped."""
    with _reading(path), Image.open(path) as image:
        return _to_rgb(image)


def read_mask(path: Path) -> np.ndarray:
    """Class indices of a palette or 8-bit grey PNG, `(H, W)` uint8."""
    path = Path(path)
    with _reading(path):
        data = path.read_bytes()
        if not data.startswith(_PNG_SIGNATURE) or len(data) <= _PNG_COLOUR:
            raise ValueError("a mask is a PNG file")
        depth, colour = data[_PNG_DEPTH], data[_PNG_COLOUR]
        if colour != 3 and (colour, depth) != (0, 8):
            raise ValueError("a mask is a palette PNG or an 8-bit grey PNG")
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """True for the kinds that DALI's decoders and Pillow agree on."""
    if image.mode not in ("RGB", "L"):
        return False
    if image.format == "JPEG":
        return b"\xff\xd9" in data[-_TAIL:]
    upright = image.getexif().get(_ORIENTATION, 1) == 1
    return (
        image.format == "PNG"
        and data[_PNG_DEPTH] == 8
        and upright
        and "transparency" not in image.info
    )


def _as_ppm(rgb: np.ndarray) -> bytes:
    height, width, _ = rgb.shape
    return b"P6\n%d %d\n255\n" % (width, height) + rgb.tobytes()


def read_encoded(path: Path) -> EncodedImage:
    """Read a file for the DALI decoder.

    8-bit RGB and grey JPEGs and PNGs are handed on as they are. The rare rest (CMYK, 16 bits,
    palette, transparency, other formats, a JPEG that seems cut short) is decoded by Pillow, which
    also finds what is broken in it, and is handed on uncompressed.
    """
    with _reading(path):
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            size = _displayed_size(image)
            if not _is_plain(image, data):
                data = _as_ppm(_to_rgb(image))
    return EncodedImage(np.frombuffer(data, np.uint8), size)
