"""A small VOC-format dataset that is drawn here, with a confounder of known strength.

Every class has a context, a background texture. In the lists `train` and `val` an object stands
on its own class's context with probability `confounding`; in `cut` contexts are drawn uniformly,
so the fall from `val` to `cut` measures how much a network relies on context.
"""

import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from c2am.config import SyntheticConfig
from c2am.data import drawing
from c2am.data.dataset import DataError
from c2am.data.voc import VocDataset
from c2am.palette import voc_palette
from c2am.progress import progress
from c2am.workspace import writing

_RECORD = "synthetic.txt"  # the settings that a folder was drawn with
_OBJECT_SIDES = (0.25, 0.60)  # of the image's shorter side
_MIN_VISIBLE = 0.4  # an object that is hidden more than this is not drawn at all
_SIDE_STEPS = (0.875, 1.0, 1.125)  # few sizes, so that inference finds images of one size


class Scene(NamedTuple):
    """A drawn image with its mask."""

    image: np.ndarray
    """`(H, W, 3)` uint8."""
    mask: np.ndarray
    """`(H, W)` uint8: class index + 1, 0 for background."""


class SyntheticDataset(VocDataset):
    """`VocDataset` on a folder that is drawn on first use.

    Raises `DataError` if `root` holds something else, or was drawn with other settings.
    """

    def __init__(self, config: SyntheticConfig, root: Path) -> None:
        draw_dataset(config, Path(root))
        super().__init__(root)


def _record(config: SyntheticConfig) -> str:
    return "".join(f"{name}: {value}\n" for name, value in asdict(config).items())


def _check_drawn(config: SyntheticConfig, root: Path) -> None:
    record = root / _RECORD
    if not record.is_file():
        raise DataError(f"{root}: exists and holds no synthetic dataset; choose another data.root")
    if record.read_text(encoding="utf-8") != _record(config):
        raise DataError(
            f"{record}: drawn with other settings; remove {root} or choose another data.root"
        )


def draw_dataset(config: SyntheticConfig, root: Path) -> None:
    """Draw the dataset into `root` unless it is there; it appears whole or not at all."""
    if root.exists():
        return _check_drawn(config, root)
    with writing(root):
        _draw(config, root)


def _draw(config: SyntheticConfig, root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
        drawn = Path(folder) / root.name
        _write_dataset(config, drawn)
        try:
            os.rename(drawn, root)
        except OSError:
            # Another process has drawn it meanwhile, if the folder is there.
            if not root.exists():
                raise
            _check_drawn(config, root)


def _write_dataset(config: SyntheticConfig, root: Path) -> None:
    names = tuple(drawing.SHAPES)[: config.classes]
    lists = root / "ImageSets" / "Segmentation"
    for folder in (root / "JPEGImages", root / "Annotations", root / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    sizes = {"train": config.train_images, "val": config.val_images, "cut": config.cut_images}
    for number, (split, count) in enumerate(sizes.items()):
        ids = [f"{split}_{index:05d}" for index in range(count)]
        confounding = 0.0 if split == "cut" else config.confounding
        for index, image_id in enumerate(progress(ids, f"{root.name}: draw {split}")):
            rng = np.random.Generator(np.random.PCG64([config.seed, number, index]))
            _write_scene(root, image_id, draw_scene(rng, config, confounding), names)
        (lists / f"{split}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    shutil.copy(lists / "train.txt", lists / "train_aug.txt")
    (root / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (root / _RECORD).write_text(_record(config), encoding="utf-8")


def _write_scene(root: Path, image_id: str, scene: Scene, names: tuple[str, ...]) -> None:
    Image.fromarray(scene.image).save(root / "JPEGImages" / f"{image_id}.jpg", quality=92)
    mask = Image.fromarray(scene.mask).convert("P")
    mask.putpalette(voc_palette().tobytes())
    mask.save(root / "SegmentationClass" / f"{image_id}.png")
    found = [names[value - 1] for value in np.unique(scene.mask) if value]
    objects = "".join(f"  <object><name>{name}</name></object>\n" for name in found)
    height, width = scene.mask.shape
    text = (
        f"<annotation>\n  <filename>{image_id}.jpg</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"{objects}</annotation>\n"
    )
    (root / "Annotations" / f"{image_id}.xml").write_text(text, encoding="utf-8")


def draw_scene(rng: np.random.Generator, config: SyntheticConfig, confounding: float) -> Scene:
    """Draw one to three objects, each on a context that is its class's own with `confounding`."""
    height, width = (int(config.size * _SIDE_STEPS[rng.integers(3)]) for _ in range(2))
    count = int(np.searchsorted([0.45, 0.85], rng.random(), side="right")) + 1
    kinds = [int(kind) for kind in rng.integers(config.classes, size=count)]
    vertical, edges = rng.random() < height / (width + height), _borders(rng, count)
    tied = rng.random(count) < confounding
    contexts = np.where(tied, kinds, rng.integers(config.classes, size=count))
    canvas = _draw_contexts(rng, contexts, (height, width), edges, vertical)
    instances = np.zeros((height, width), np.uint8)  # object number + 1
    for number, kind in enumerate(kinds):
        along, across = (edges[number] + edges[number + 1]) / 2, 0.3 + 0.4 * rng.random()
        along += 0.2 * (rng.random() - 0.5)
        place = (along, across) if vertical else (across, along)
        _draw_object(rng, canvas, instances, kind, number, place)
    noise = rng.integers(-10, 11, size=(height, width, 1))
    image = np.clip(np.floor(canvas + noise + 0.5), 0, 255).astype(np.uint8)
    value = np.array([0, *(kind + 1 for kind in kinds)], np.uint8)
    return Scene(image, value[instances])


def _borders(rng: np.random.Generator, count: int) -> np.ndarray:
    """Where the parts of the scene meet, `(count + 1,)` in 0..1."""
    edges = np.arange(count + 1) / count
    edges[1:-1] += (rng.random(count - 1) - 0.5) * 0.3 / count
    return edges


def _draw_contexts(
    rng: np.random.Generator,
    contexts: np.ndarray,
    size: tuple[int, int],
    edges: np.ndarray,
    vertical: bool,
) -> np.ndarray:
    """Backgrounds that fill the scene part by part, `(H, W, 3)` float."""
    height, width = size
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    along = y / height if vertical else x / width
    along = along + 0.1 * (drawing.smooth_noise(rng, height, width, 6) - 0.5)
    canvas = np.zeros((height, width, 3))
    for number, context in enumerate(contexts):
        colours = drawing.paint(rng, drawing.CONTEXTS[context], x, y, min(size) / 8)
        part = along >= (edges[number] if number else -1)
        canvas[part] = colours[part]
    light = 0.75 + 0.5 * drawing.smooth_noise(rng, height, width, 4)
    return canvas * light[..., None]


def _draw_object(
    rng: np.random.Generator,
    canvas: np.ndarray,
    instances: np.ndarray,
    kind: int,
    number: int,
    place: tuple[float, float],
) -> None:
    """Draw an object over what is there, or not at all if it hid too much of another."""
    height, width = instances.shape
    low, high = _OBJECT_SIDES
    side = min(height, width) * (low + (high - low) * rng.random())
    u, v = drawing.frame(rng, height, width, (place[0] * height, place[1] * width), side)
    shape = list(drawing.SHAPES.values())[kind](u, v)
    for other in range(number):
        area = int((instances == other + 1).sum())
        if ((instances == other + 1) & shape).sum() > (1 - _MIN_VISIBLE) * area:
            return
    colours = drawing.paint(
        rng, drawing.OBJECTS[kind], u * side / 2, v * side / 2, min(height, width) / 14
    )
    canvas[shape] = (colours * drawing.shade(rng, u, v))[shape]
    instances[shape] = number + 1
