"""DeepLabV2: atrous spatial pyramid pooling on a dilated backbone (Chen et al. 2017)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2am.config import SegmenterConfig, TrainConfig
from c2am.models.backbone import Backbone, build_backbone

RATES = (6, 12, 18, 24)
"""Dilations in cells of output stride 8, as published; at 16 they are halved, to reach as far."""


class DeepLab(nn.Module):
    """The sum of 3x3 convolutions with different dilations on the last features."""

    def __init__(
        self, backbone: Backbone, num_classes: int, *, rates: Sequence[int] = RATES
    ) -> None:
        """
        Args:
            backbone: of output stride 8 or 16; its batch norms are frozen.
            num_classes: Z, without the background.
            rates: dilations of the convolutions, in cells.
        """
        super().__init__()
        self.backbone = backbone
        self.backbone.freeze(batch_norms=True, stages=0)
        channels = backbone.channels[-1]
        self.aspp = nn.ModuleList(_atrous(channels, num_classes + 1, rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised RGB `x (B,3,H,W)` -> logits (B,Z+1,h,w) at output stride, 0 = background."""
        features = self.backbone(x)[-1]
        return torch.stack([conv(features) for conv in self.aspp]).sum(dim=0)

    def multi_scale(self, x: Tensor, scales: Sequence[float]) -> tuple[list[Tensor], Tensor]:
        """Logits of each scale at its own resolution, and their maximum at that of the first.

        Args:
            x: (B,3,H,W), normalised RGB.
            scales: factors on H and W, the first usually 1.

        Returns:
            logits: (B,Z+1,h_s,w_s) of each scale.
            fused: (B,Z+1,h,w), the maximum, after bilinear resizing to the first's h, w.
        """
        logits = [self(_scaled(x, scale)) for scale in scales]
        size = logits[0].shape[-2:]
        resized = [logits[0], *(_resized(each, size) for each in logits[1:])]
        return logits, torch.stack(resized).amax(dim=0)

    def fused(self, x: Tensor, scales: Sequence[float]) -> Tensor:
        """The fused logits of `multi_scale`, (B,Z+1,h,w)."""
        return self.multi_scale(x, scales)[1]

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """Backbone with `lr`, ASPP weights with `head_lr`, its biases twice that, undecayed."""
        convs = list(self.aspp.children())
        biases = {"params": [conv.bias for conv in convs], "lr": 2 * config.head_lr}
        return [
            {"params": [p for p in self.backbone.parameters() if p.requires_grad], "lr": config.lr},
            {"params": [conv.weight for conv in convs], "lr": config.head_lr},
            biases | {"weight_decay": 0.0},
        ]


def build_segmenter(config: SegmenterConfig, num_classes: int) -> DeepLab:
    """DeepLabV2 of a config for Z = `num_classes` classes."""
    backbone = build_backbone(config.backbone, config.weights, output_stride=config.output_stride)
    rates = [rate * 8 // config.output_stride for rate in RATES]
    return DeepLab(backbone, num_classes, rates=rates)


def _atrous(channels: int, num_classes: int, rate: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


def _scaled(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    if min(x.shape[-2:]) * scale < 1:  # a pixel is left of every image
        return _resized(x, tuple(max(1, int(side * scale)) for side in x.shape[-2:]))
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def _resized(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
