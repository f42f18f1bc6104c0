"""The protocol of a method, with defaults for all but its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from c2am import ops
from c2am.config import FrontDoorConfig
from c2am.models.classifier import Classifier, ClassifierOutput, logit_statistics

if TYPE_CHECKING:
    from c2am.data.loader import TrainBatch


@dataclass
class Artefacts:
    """What earlier stages made, for the methods that ask for it in `needs`."""

    global_cam: Tensor | None = None
    """(Z,S,S), the mean normalised CAM of each class."""


class Method:
    """How a classifier gets its class activation maps: one row of the results table.

    A subclass in a file of its own overrides `loss` and, where its maps differ, `class_maps`.

    Attributes:
        name: the file's name; set by `build_method`.
        trains: False where the baseline classifier is used as it is.
        needs: names of the `Artefacts` that `prepare` gets.
        starts_from: stage whose weights training starts from, or `imagenet`.
        rounds: how often `prepare` and the training are gone through.
        needs_gradients: whether `class_maps` differentiates, as Grad-CAM does.
        statistics: numbers of the last `loss`, detached, for the log.
    """

    name: str
    trains: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    starts_from: ClassVar[str] = "classifier"
    rounds: ClassVar[int] = 1
    needs_gradients: ClassVar[bool] = False

    def __init__(self, config: FrontDoorConfig) -> None:
        self.config = config
        self.statistics: dict[str, Tensor] = {}

    def attach(self, net: Classifier) -> list[dict[str, Any]]:
        """Add heads or buffers to `net`; returns parameter groups for the optimiser."""
        return []

    def prepare(self, net: Classifier, artefacts: Artefacts, round: int) -> None:
        """Take what the method needs before training round `round` (from 0)."""

    def loss(self, net: Classifier, batch: TrainBatch, progress: float) -> dict[str, Tensor]:
        """Terms of the loss by name, weighted; 0-d tensors whose sum is minimised.

        Args:
            net: the classifier, perhaps wrapped for distributed training.
            batch: images (b,3,crop,crop) and labels (b,Z).
            progress: share of the training that is done, 0 to 1.
        """
        raise NotImplementedError(f"method {self.name} does not train")

    def after_step(self, net: Classifier, batch: TrainBatch, progress: float) -> None:
        """Called without gradient after each step of the optimiser."""

    @torch.no_grad()
    def class_maps(self, net: Classifier, views: Tensor, present: Tensor, ids: list[str]) -> Tensor:
        """CAMs of the present classes at one scale, not normalised.

        Args:
            net: the trained classifier in eval mode.
            views: (B,V,3,H,W), normalised; V = 2 is the image and its mirror.
            present: (B,Z) bool, the image-level labels; on the CPU, as its sum is a size.
            ids: names of the B images.

        Returns:
            (K,h,w), at least 0, at the resolution of the features; K = present.sum() in the
            row-major order of `present`.
        """
        features = net(views.flatten(0, 1)).features.unflatten(0, views.shape[:2])
        size = (features.shape[-2], features.shape[-1])
        # The maps are float32 even where autocast made the features bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            return ops.extract_cam(features, net.weight, present, size, flip=views.shape[1] == 2)

    def outputs(self, net: Classifier, batch: TrainBatch) -> ClassifierOutput:
        """The classifier's outputs for a batch; keeps their statistics for the log."""
        output = net(batch.images)
        self.statistics = logit_statistics(output, batch.labels)
        return output


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of logits (b,Z), mean over images and classes; 0-d, float32."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)
