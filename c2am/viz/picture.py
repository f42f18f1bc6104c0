"""Pictures that travel inside the page: base64 data URIs with their alternative text."""

import base64
import io
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from c2am.viz.figures import to_svg
from c2am.viz.overlays import Rgb


@dataclass(frozen=True)
class Picture:
    """An image of a page: its data URI, alternative text and size in CSS pixels."""

    uri: str
    alt: str
    width: int
    height: int


def embed(pixels: Rgb, alt: str, *, photo: bool = True) -> Picture:
    """`pixels (H,W,3)` uint8 as JPEG, or (`photo=False`) as PNG, which keeps edges exact."""
    kind = "jpeg" if photo else "png"
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, kind, quality=85, optimize=True)
        data = buffer.getvalue()
    height, width = pixels.shape[:2]
    return Picture(_uri(f"image/{kind}", data), alt, width, height)


def embed_figure(figure: Figure, alt: str) -> Picture:
    """A matplotlib figure as SVG."""
    width, height = figure.get_size_inches() * 96  # CSS pixels per inch
    return Picture(_uri("image/svg+xml", to_svg(figure).encode()), alt, round(width), round(height))


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
