"""A small run on disk: manifests, class maps and masks as the stages write them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from c2am.config import PipelineConfig
from c2am.events import Events
from c2am.workspace import Workspace, write_mask, write_tensors

CLASSES = ("cat", "<b>dog</b>", "cost $5_and$")
IDS = ["first", "second", "third"]
SIZE = (24, 36)


@dataclass
class FakeDataset:
    """Three images of 24 x 36 pixels; image n holds class n."""

    root: Path
    masks: bool = True
    classes: tuple[str, ...] = CLASSES
    images: list[str] = field(default_factory=lambda: list(IDS))

    def ids(self, split: str) -> list[str]:
        return self.images

    def image_path(self, image_id: str) -> Path:
        return self.root / f"{image_id}.png"

    def labels(self, image_id: str) -> np.ndarray:
        return np.arange(len(self.classes)) == self.images.index(image_id)

    def size(self, image_id: str) -> tuple[int, int]:
        return SIZE

    def mask_path(self, image_id: str) -> Path | None:
        return self.root / f"{image_id}_mask.png" if self.masks else None


@pytest.fixture
def dataset(tmp_path: Path) -> FakeDataset:
    root = tmp_path / "data"
    root.mkdir()
    rng = np.random.default_rng(0)
    for index, image_id in enumerate(IDS):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{image_id}.png")
        write_mask(root / f"{image_id}_mask.png", square_mask(index + 1))
    return FakeDataset(root)


@pytest.fixture
def config() -> PipelineConfig:
    return PipelineConfig(name="<i>run", methods=("cam", "c2am"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A run whose stages up to the pseudo masks have finished."""
    space = Workspace(tmp_path / "run")
    space.write_manifest("classifier", None, manifest({"loss": 0.1}))
    _write_global_cam(space)
    for index, method in enumerate(("cam", "c2am")):
        _write_method(space, method, 0.40 + 0.05 * index)
    with Events(space.events, "classifier") as events:
        for step in range(0, 50, 10):
            events.log(step, {"loss": 0.7 - 0.01 * step, "lr": 0.1})
    (space.root / "config.yaml").write_text("name: <i>run\n")
    return space


def square_mask(value: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[6:18, 6:18] = value
    return mask


def manifest(metrics: dict) -> dict:
    return {
        "fingerprint": "0",
        "metrics": metrics,
        "versions": {"torch": "2.11.0", "python": "3.11.7"},
        "wall_time": 75.0,
        "peak_memory": 3 * 2**20,
    }


def score(miou: float) -> dict:
    iou = {"background": 0.8, "cat": miou, "<b>dog</b>": miou / 2, "cost $5_and$": None}
    return {"miou": miou, "iou": iou, "false_positive": 0.25, "false_negative": 0.125}


def _write_global_cam(space: Workspace) -> None:
    maps = torch.stack([torch.full((8, 8), value) for value in (0.1283, 0.0480, 0.0932)])
    tensors = {"total": maps * 4, "count": torch.tensor([4, 4, 4]), "global_cam": maps}
    write_tensors(space.folder("global_cam") / "global_cam.safetensors", tensors)
    space.write_manifest("global_cam", None, manifest({}))


def _write_method(space: Workspace, method: str, miou: float) -> None:
    curve = [[0.1, miou - 0.1], [0.2, miou], [0.3, miou - 0.05]]
    seeds = {"score": score(miou), "val": score(miou - 0.02), "threshold": 0.2, "curve": curve}
    masks = {"score": score(miou + 0.1), "threshold": 0.2, "curve": curve}
    for index, image_id in enumerate(IDS):
        height, width = SIZE
        high = torch.rand(1, height, width, generator=torch.Generator().manual_seed(index))
        tensors = {
            "classes": torch.tensor([index]),
            "strided": high[:, ::4, ::4].half(),
            "high_res": high.half(),
        }
        write_tensors(space.folder("cam", method) / f"{image_id}.safetensors", tensors)
        write_mask(space.folder("pseudo_masks", method) / f"{image_id}.png", square_mask(index + 1))
    space.write_manifest("cam", method, manifest(seeds))
    space.write_manifest("pseudo_masks", method, manifest(masks))
