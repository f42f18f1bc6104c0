"""A tiny run: drawn data, hand-made pictures, and contexts of single stages."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from c2am.config import (
    CamConfig,
    ClassifierConfig,
    DataConfig,
    EvaluationConfig,
    FrontDoorConfig,
    GlobalCamConfig,
    IrnConfig,
    PipelineConfig,
    PredictionsConfig,
    SegmenterConfig,
    SyntheticConfig,
)
from c2am.data import Dataset, SyntheticDataset
from c2am.events import Events
from c2am.methods import build_method
from c2am.models import build_classifier, build_irn, build_segmenter
from c2am.stages.class_maps import resize, strided_size
from c2am.stages.context import StageContext
from c2am.workspace import Workspace, write_mask, write_tensors

SYNTHETIC = SyntheticConfig(classes=8, train_images=8, val_images=6, cut_images=1, size=64)
TRAINING = {
    "steps": 2,
    "batch_size": 4,
    "crop": 64,
    "checkpoint_every": 1,
    "log_every": 1,
    "precision": "float32",
}
NETWORK = {"backbone": "resnet18", "weights": "none"}


@dataclass
class Pictures:
    """A dataset made by hand: PNG images, labels and masks by id; every list holds all of them."""

    folder: Path
    classes: tuple[str, ...] = ("cat", "dog", "sofa")
    known: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, image_id: str, image: np.ndarray, labels: list[int], mask=None) -> None:
        """Add an image (H, W, 3), the indices of its classes, and its mask (H, W)."""
        Image.fromarray(image).save(self.image_path(image_id))
        self.known[image_id] = np.isin(np.arange(len(self.classes)), labels)
        self.sizes[image_id] = image.shape[:2]
        if mask is not None:
            self.masks[image_id] = mask
            write_mask(self.folder / f"{image_id}_truth.png", mask)

    def ids(self, split: str) -> list[str]:
        return list(self.known)

    def image_path(self, image_id: str) -> Path:
        return self.folder / f"{image_id}_image.png"

    def labels(self, image_id: str) -> np.ndarray:
        return self.known[image_id]

    def size(self, image_id: str) -> tuple[int, int]:
        return self.sizes[image_id]

    def mask_path(self, image_id: str) -> Path | None:
        return self.folder / f"{image_id}_truth.png" if image_id in self.masks else None


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return Pictures(folder)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> SyntheticDataset:
    """8 training and 6 val images of about 64 pixels."""
    return SyntheticDataset(SYNTHETIC, tmp_path_factory.mktemp("synthetic") / "data")


@pytest.fixture
def config(tmp_path) -> PipelineConfig:
    """The smallest networks, without pretrained weights, two steps each."""
    data = DataConfig(kind="synthetic", train_list="train", synthetic=SYNTHETIC, threads=1)
    return PipelineConfig(
        name="run",
        workspace=str(tmp_path),
        device="cpu",
        data=data,
        classifier=ClassifierConfig(
            **NETWORK, **TRAINING, lr=0.01, head_lr=0.1, resize_long=(56.0, 96.0)
        ),
        global_cam=GlobalCamConfig(size=12),
        front_door=FrontDoorConfig(**TRAINING, resize_long=(56.0, 96.0)),
        cam=CamConfig(scales=(1.0, 0.5), batch_size=2),
        irn=IrnConfig(**NETWORK, **TRAINING, lr=0.01, head_lr=0.01, radius=4),
        segmenter=SegmenterConfig(**NETWORK, **TRAINING, scale=(0.75, 1.5), scales=(1.0, 0.5)),
        predictions=PredictionsConfig(batch_size=2),
        evaluation=EvaluationConfig(thresholds=(0.02, 0.98, 0.02)),
    )


MakeContext = Callable[..., StageContext]


@pytest.fixture
def make_context(tmp_path, config, drawn) -> MakeContext:
    """`make_context(stage, method=None, dataset=drawn)`; all of a test share one workspace."""

    def make(stage: str, method: str | None = None, dataset: Dataset = drawn) -> StageContext:
        workspace = Workspace(tmp_path / "run")
        folder = workspace.folder(stage, method)
        folder.mkdir(parents=True, exist_ok=True)
        return StageContext(
            config=config,
            workspace=workspace,
            dataset=dataset,
            device=torch.device("cpu"),
            method=build_method(method, config.front_door) if method else None,
            folder=folder,
            events=Events(workspace.events, stage),
        )

    return make


@pytest.fixture
def write_network() -> Callable[[StageContext, str], torch.nn.Module]:
    """Write the random weights of an untrained stage, as if it were done; returns the network."""

    def write(context: StageContext, stage: str) -> torch.nn.Module:
        config, classes = context.config, len(context.dataset.classes)
        torch.manual_seed(0)
        net: torch.nn.Module
        if stage == "classifier":
            net, folder = build_classifier(config.classifier, classes), context.shared(stage)
        elif stage == "irn":
            net, folder = build_irn(config.irn), context.own(stage)
        else:
            net, folder = build_segmenter(config.segmenter, classes), context.own(stage)
        write_tensors(folder / "weights.safetensors", net.state_dict())
        return net.eval()

    return write


@pytest.fixture
def write_cams() -> Callable[[Path, str, list[int], torch.Tensor], None]:
    """Write a file of stage `cam`; the strided maps are `high_res (K, H, W)` made smaller."""

    def write(folder: Path, image_id: str, classes: list[int], high_res: torch.Tensor) -> None:
        tensors = {
            "classes": torch.tensor(classes, dtype=torch.int64),
            "strided": resize(high_res, strided_size(high_res.shape[1:])).half(),
            "high_res": high_res.half(),
        }
        write_tensors(folder / f"{image_id}.safetensors", tensors)

    return write
