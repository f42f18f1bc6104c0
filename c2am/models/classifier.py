"""The multi-label classifier whose last layer's weights make the CAMs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from c2am.config import ClassifierConfig, TrainConfig
from c2am.models.backbone import Backbone, build_backbone


class ClassifierOutput(NamedTuple):
    """What a forward pass of the classifier gives."""

    stages: tuple[Tensor, ...]
    """Features of the five stages, each (B,C_i,h_i,w_i)."""
    features: Tensor
    """Features of the last stage, (B,C,h,w), not negative."""
    logits: Tensor
    """(B,Z)."""


class Classifier(nn.Module):
    """Backbone, global average pooling and a 1x1 convolution without bias (Zhou et al. 2016)."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels[-1], num_classes, 1, bias=False)

    @property
    def weight(self) -> Tensor:
        """Weights of the classes, (Z,C)."""
        return self.head.weight.flatten(1)

    def forward(self, x: Tensor) -> ClassifierOutput:
        """Normalised RGB `x (B,3,H,W)` -> stage features, last features and logits."""
        stages = self.backbone(x)
        pooled = stages[-1].mean(dim=(2, 3), keepdim=True)
        return ClassifierOutput(stages, stages[-1], self.head(pooled).flatten(1))

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """The backbone's trained parameters with `lr`, the head's with `head_lr`."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        groups = [
            {"params": backbone, "lr": config.lr},
            {"params": list(self.head.parameters()), "lr": config.head_lr},
        ]
        return [group for group in groups if group["params"]]


def build_classifier(config: ClassifierConfig, num_classes: int) -> Classifier:
    """The classifier of a config, with pretrained backbone and frozen parts."""
    backbone = build_backbone(config.backbone, config.weights, output_stride=config.output_stride)
    backbone.freeze(batch_norms=config.freeze_bn, stages=config.frozen_stages)
    return Classifier(backbone, num_classes)


def logit_statistics(output: ClassifierOutput, labels: Tensor) -> dict[str, Tensor]:
    """Mean logit of the present and of the absent classes, and mean last feature; 0-d, detached.

    Scaled logits first drive all logits down and lift those of the present classes only later;
    these numbers show how far a training has come. Without any present (absent) class the mean
    is NaN.

    Args:
        output: of the classifier, B images.
        labels: (B,Z), 1 where the class is present.
    """
    logits, present = output.logits.detach().float(), (labels > 0.5).float()
    return {
        "positive_logit": (logits * present).sum() / present.sum(),
        "negative_logit": (logits * (1 - present)).sum() / (1 - present).sum(),
        "feature": output.features.detach().mean(dtype=torch.float32),
    }
