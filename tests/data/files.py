"""Datasets made by hand, for the tests in this folder."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from c2am.palette import voc_palette


class Files:
    """Image files in a folder as a dataset; an id is the name of its file, extension included."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.classes = ("cat", "dog", "sofa")
        self.sizes: dict[str, tuple[int, int]] = {}

    def add(self, name: str, image: np.ndarray, mask: np.ndarray | None = None) -> str:
        """Write an image (H, W, 3) and, if given, its mask (H, W); returns the id."""
        Image.fromarray(image).save(self.folder / name)
        self.sizes[name] = image.shape[:2]
        if mask is not None:
            save_mask(self.mask_path(name), mask)
        return name

    def add_bytes(self, name: str, data: bytes, size: tuple[int, int] = (24, 32)) -> str:
        """Write a file as it is; `size` is what its header may say."""
        (self.folder / name).write_bytes(data)
        self.sizes[name] = size
        return name

    def image_path(self, image_id: str) -> Path:
        return self.folder / image_id

    def mask_path(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.mask.png"

    def labels(self, image_id: str) -> np.ndarray:
        """A class by the letter that the id begins with; none for other letters."""
        return np.array([image_id[0] == name[0] for name in self.classes])

    def size(self, image_id: str) -> tuple[int, int]:
        return self.sizes[image_id]

    def ids(self, split: str) -> list[str]:
        return list(self.sizes)


def save_mask(path: Path, mask: np.ndarray) -> None:
    """A palette PNG."""
    image = Image.fromarray(mask, "L").convert("P")
    image.putpalette(voc_palette().tobytes())
    image.save(path)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blocks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth colours that differ in every corner, (H, W, 3) uint8."""
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def write_voc(root: Path, ids: dict[str, list[str]], names: list[str], size=(20, 30)) -> None:
    """A VOCdevkit: lists by name; every image is labelled with `names`, every mask is empty."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    for split, members in ids.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(members) + "\n")
        for image_id in members:
            Image.new("RGB", size[::-1], (90, 60, 30)).save(root / "JPEGImages" / f"{image_id}.jpg")
            xml = f"<annotation>{objects}</annotation>"
            (root / "Annotations" / f"{image_id}.xml").write_text(xml)
            save_mask(root / "SegmentationClass" / f"{image_id}.png", np.zeros(size, np.uint8))
