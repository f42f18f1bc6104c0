"""Class maps and masks drawn over their images, as uint8 RGB arrays."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from c2am.palette import voc_palette

Rgb = NDArray[np.uint8]
_PALETTE = voc_palette()


def heat(values: NDArray[np.floating], colormap: str = "turbo") -> Rgb:
    """Colours of a map: `values (H,W)` in 0..1 (clipped) -> `(H,W,3)` uint8."""
    clipped = np.clip(np.asarray(values, dtype=np.float32), 0, 1)
    return colormaps[colormap](clipped, bytes=True)[..., :3]


def blend(image: Rgb, colours: Rgb, alpha: NDArray[np.floating] | float) -> Rgb:
    """`alpha` (a number, or `(H,W)`) of `colours (H,W,3)` over the rest of `image (H,W,3)`."""
    weight = np.asarray(alpha, dtype=np.float32)
    weight = weight[..., None] if weight.ndim else weight
    mixed = image.astype(np.float32) * (1 - weight) + colours.astype(np.float32) * weight
    return np.rint(mixed).astype(np.uint8)


def overlay_cam(image: Rgb, cam: NDArray[np.floating], alpha: float = 0.55) -> Rgb:
    """A class map `(H,W)` in 0..1 as heat over `image (H,W,3)` uint8."""
    _check_size(image, cam, "cam")
    return blend(image, heat(cam), alpha)


def colour_mask(mask: NDArray[np.uint8]) -> Rgb:
    """Palette colours of class indices: `(H,W)` uint8 -> `(H,W,3)` uint8."""
    return _PALETTE[mask]


def overlay_mask(image: Rgb, mask: NDArray[np.uint8], alpha: float = 0.7) -> Rgb:
    """Class indices `(H,W)` uint8 over `image`, in white outlines; the background (0) is greyed.

    The palette has a grey of its own (VOC's car), which only the outline tells from that.
    """
    _check_size(image, mask, "mask")
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6
    quiet = grey.astype(np.uint8)
    drawn = blend(quiet, colour_mask(mask), np.where(mask == 0, 0.0, alpha))
    drawn[:, 1:][mask[:, 1:] != mask[:, :-1]] = 255
    drawn[1:][mask[1:] != mask[:-1]] = 255
    return drawn


def fit(picture: Rgb, side: int) -> Rgb:
    """`picture` shrunk, if need be, until its longer side is `side` pixels."""
    height, width = picture.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _check_size(image: Rgb, layer: NDArray, name: str) -> None:
    if image.shape[:2] != layer.shape:
        raise ValueError(f"{name}: expected shape {image.shape[:2]}, got {layer.shape}")
