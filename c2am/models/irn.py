"""IRN: class boundaries and displacement field (Ahn et al., CVPR 2019)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2am.config import IrnConfig, TrainConfig
from c2am.models.backbone import Backbone, build_backbone

STRIDE = 4
_FUSED_STRIDE = 8


class Irn(nn.Module):
    """A boundary and a displacement branch on a frozen backbone; both give stride 4.

    Attributes:
        displacement_mean: (2,), mean displacement over the training images in cells of stride 4,
            subtracted in eval mode; whoever trains the net fills it at the end.
        crop: side of the training crops in pixels; see `boundaries`.
    """

    displacement_mean: Tensor

    def __init__(self, backbone: Backbone, *, crop: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone.freeze(batch_norms=True, stages=5)
        self.crop = crop
        self.edge = EdgeBranch(backbone)
        self.displacement = DisplacementBranch(backbone)
        self.register_buffer("displacement_mean", torch.zeros(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised RGB `x (B,3,H,W)` -> boundary logits and displacements.

        Returns:
            edge: (B,1,h,w) with h = ceil(H/4), w = ceil(W/4).
            displacement: (B,2,h,w), (dy,dx) in cells.
        """
        with torch.no_grad():
            stages = self.backbone(x)
        size = tuple((side + STRIDE - 1) // STRIDE for side in x.shape[-2:])
        displacement = self.displacement(stages, size)
        if not self.training:
            displacement = displacement - self.displacement_mean.view(1, 2, 1, 1)
        return self.edge(stages, size), displacement

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """The boundary branch with `lr`, the displacement branch with `head_lr`."""
        return [
            {"params": list(self.edge.parameters()), "lr": config.lr},
            {"params": list(self.displacement.parameters()), "lr": config.head_lr},
        ]


class EdgeBranch(nn.Module):
    """32 channels of each of the five stages, brought to stride 4 and mixed to one logit."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.strides = backbone.strides
        self.reduce = nn.ModuleList(_reduce(c, 32, groups=4) for c in backbone.channels)
        self.fuse = nn.Conv2d(32 * len(backbone.channels), 1, 1)

    def forward(self, stages: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Stage features -> boundary logits (B,1,*size)."""
        reduced = [
            F.relu(resample(reduce(x), stride, STRIDE, size))
            for reduce, x, stride in zip(self.reduce, stages, self.strides, strict=True)
        ]
        return self.fuse(torch.cat(reduced, dim=1))


class DisplacementBranch(nn.Module):
    """The last three stages are fused at stride 8, the result and the first two at stride 4."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        widths = (64, 128, 256, 256, 256)
        self.strides = backbone.strides
        self.reduce = nn.ModuleList(
            _reduce(channels, width, groups=8 if width == 64 else 16)
            for channels, width in zip(backbone.channels, widths, strict=True)
        )
        self.fuse8 = _reduce(3 * 256, 256, groups=16)
        self.fuse4 = nn.Sequential(
            *_reduce(64 + 128 + 256, 256, groups=16),
            nn.ReLU(),
            nn.Conv2d(256, 2, 1, bias=False),
        )

    def forward(self, stages: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Stage features -> displacements (B,2,*size)."""
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        targets = [(STRIDE, size)] * 2 + [(_FUSED_STRIDE, half)] * 3
        reduced = [
            F.relu(resample(reduce(x), stride, *target))
            for reduce, x, stride, target in zip(
                self.reduce, stages, self.strides, targets, strict=True
            )
        ]
        fused = self.fuse8(torch.cat(reduced[2:], dim=1))
        fused = F.relu(resample(fused, _FUSED_STRIDE, STRIDE, size))
        return self.fuse4(torch.cat([*reduced[:2], fused], dim=1))


def build_irn(config: IrnConfig) -> Irn:
    """IRN of a config, at output stride 16."""
    return Irn(build_backbone(config.backbone, config.weights, output_stride=16), crop=config.crop)


@torch.no_grad()
def boundaries(net: Irn, views: Tensor) -> Tensor:
    """Class boundaries of images: logits averaged with the mirrored image's, then sigmoid.

    Images smaller than the training crop are padded with 0 on the right and below, as the crops
    are (Ahn et al.: to 512), since the group norms see the border too; larger ones are not.

    Args:
        net: in eval mode.
        views: (B,2,3,H,W), the normalised image and its mirror.

    Returns:
        (B,h,w) in [0,1], float32, h = ceil(H/4), w = ceil(W/4).
    """
    if views.dim() != 5 or views.shape[1:3] != (2, 3):
        raise ValueError(f"views has shape {tuple(views.shape)}: expected (B,2,3,H,W)")
    height, width = ((side + STRIDE - 1) // STRIDE for side in views.shape[-2:])
    below, right = (max(net.crop - side, 0) for side in views.shape[-2:])
    edge, _ = net(F.pad(views.flatten(0, 1), (0, right, 0, below)))
    edge = edge[..., :height, :width].float().view(-1, 2, height, width)
    return torch.sigmoid((edge[:, 0] + edge[:, 1].flip(-1)) / 2)


def resample(x: Tensor, stride: int, target: int, size: tuple[int, int]) -> Tensor:
    """Bring `x (B,C,h,w)` from one stride to another, cut to `size`.

    The scale is the exact ratio of the strides, so that cells stay over their pixels where the
    image's size is no multiple of the strides.
    """
    if stride < target:
        x = F.avg_pool2d(x, target // stride, ceil_mode=True, count_include_pad=False)
    elif stride > target:
        x = F.interpolate(x, scale_factor=stride / target, mode="bilinear", align_corners=False)
    return x[..., : size[0], : size[1]]


def _reduce(channels: int, width: int, groups: int) -> nn.Sequential:
    # The ReLU follows the upsampling (Ahn et al.), so it is not part of this.
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width))
