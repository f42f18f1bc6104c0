"""A run whose stages are stand-ins that only write a word, for the tests of their order."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from c2am import pipeline
from c2am.config import DataConfig, PipelineConfig
from c2am.data import DataError
from c2am.jobs import STAGE_NAMES
from c2am.workspace import Workspace

SCORE = {"miou": 0.5, "iou": {"cat": 0.5}}

ALL = [
    "classifier",
    "global_cam",
    "front_door/c2am",
    *(f"{stage}/{method}" for stage in STAGE_NAMES[3:-1] for method in ("cam", "c2am")),
    "report",
]


class Images:
    """Three images with a label each, and one for the test list without, as a dataset."""

    classes = ("cat", "dog")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists = {"train_aug": ["a", "b", "c"], "train": ["a"], "val": ["c"], "test": ["t"]}
        self.masks = {"a", "c"}
        for name in "abct":
            (folder / f"{name}.jpg").write_bytes(b"image")
            (folder / f"{name}.png").write_bytes(b"mask")

    def ids(self, split: str) -> list[str]:
        return self.lists[split]

    def image_path(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.jpg"

    def labels(self, image_id: str) -> np.ndarray:
        if image_id == "t":
            raise DataError("t.xml: no such file")
        return np.array([True, image_id == "b"])

    def mask_path(self, image_id: str) -> Path | None:
        return self.folder / f"{image_id}.png" if image_id in self.masks else None


class Run:
    """A run with stand-ins for the stages; `ran` lists those that were called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.contexts: list = []
        self.draws: dict[str, float] = {}
        self.actions: dict[str, object] = {}
        (folder / "images").mkdir()
        self.images = Images(folder / "images")
        data = DataConfig(root=str(folder / "images"))
        self.config = PipelineConfig(workspace=str(folder / "runs"), device="cpu", data=data)
        self.root = folder / "runs" / "run"
        self.workspace = Workspace(self.root)
        monkeypatch.setattr(pipeline, "open_dataset", lambda config, folder: self.images)
        for name in STAGE_NAMES:
            module = types.SimpleNamespace(run=self._stage)
            monkeypatch.setitem(sys.modules, f"c2am.stages.{name}", module)

    def _stage(self, context) -> dict:
        self.ran.append(context.name)
        self.contexts.append(context)
        self.draws[context.name] = torch.rand(()).item()
        (context.folder / "made.png").write_text("made")
        action = self.actions.get(context.name)
        if action:
            action(context)
        return {"score": SCORE, "val": SCORE, "val_crf": None, "curve": [], "threshold": 0.1}

    def __call__(self, config: PipelineConfig | None = None, **options: object) -> list[str]:
        """Run, and return the stages that were called."""
        self.ran.clear()
        pipeline.run(config or self.config, **options)
        return list(self.ran)

    def manifest(self, stage: str, method: str | None = None) -> dict:
        manifest = self.workspace.read_manifest(stage, method)
        assert manifest is not None
        return manifest


def change(config: PipelineConfig, path: str, value: object) -> PipelineConfig:
    section, _, name = path.partition(".")
    if not name:
        return replace(config, **{section: value})
    return replace(config, **{section: replace(getattr(config, section), **{name: value})})
