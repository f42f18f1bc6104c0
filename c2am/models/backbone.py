"""Backbones: ImageNet networks that return the features of five stages."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from c2am.normalization import Normalization

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


class Backbone(nn.Module):
    """Five stages in sequence, of which the leading ones and the batch norms can be frozen.

    Attributes:
        channels: of the five stage features.
        strides: of the five stage features, in input pixels; a feature of stride `s` has
            ceil(H / s) x ceil(W / s) cells.
        normalization: of the images that the weights expect.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        *,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        normalization: Normalization,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.strides = strides
        self.normalization = normalization
        self._frozen_bn = False
        self._frozen_stages = 0
        for name, stage in zip(STAGES, stages, strict=True):
            self.add_module(name, stage)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalised RGB `x (B,3,H,W)` -> the features `(B,C_i,h_i,w_i)` of the five stages."""
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for name in STAGES:
            x = self.get_submodule(name)(x)
            features.append(x)
        return tuple(features)

    def freeze(self, *, batch_norms: bool, stages: int) -> None:
        """Exclude parts from training, for good: `train()` keeps them as they are.

        Args:
            batch_norms: all batch norms keep their statistics and their affine part.
            stages: so many leading stages are not trained: 1 is the stem, 5 everything.
        """
        if not 0 <= stages <= len(STAGES):
            raise ValueError(f"stages = {stages}: expected 0 to {len(STAGES)}")
        self._frozen_bn, self._frozen_stages = batch_norms, stages
        for module in self._frozen():
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> Iterator[nn.Module]:
        for name in STAGES[: self._frozen_stages]:
            yield self.get_submodule(name)
        if self._frozen_bn:
            yield from (m for m in self.modules() if isinstance(m, nn.BatchNorm2d))


def build_backbone(name: str, weights: str, *, output_stride: int = 16) -> Backbone:
    """The backbone `name` with its pretrained `weights`.

    Args:
        name: resnet18, resnet50, resnet101 (torchvision's), resnet101_caffe (that of
            deeplab-pytorch, see docs/weights.md) or efficientnet_lite0.
        weights: `imagenet`, `none` (random), or a `.pth` or `.safetensors` file with the names
            of the library that the network is from.
        output_stride: 32 is the network as it is. 16: the last stage that halves the resolution
            keeps it, without dilation, as in Ahn et al. 2019. 8: the last two such stages keep
            it and are dilated by 2 and 4, as in DeepLabV2.

    Raises:
        ValueError: no such backbone or output stride.
        WeightsError: weights that cannot be had or do not fit.
    """
    # The builders import from here, so they are imported late.
    from c2am.models import efficientnet, resnet

    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride = {output_stride}: expected 8, 16 or 32")
    if name in resnet.NAMES:
        return resnet.build(name, weights, output_stride)
    if name == "efficientnet_lite0":
        return efficientnet.build(weights, output_stride)
    known = ", ".join((*resnet.NAMES, "efficientnet_lite0"))
    raise ValueError(f"backbone = {name!r}: expected one of {known}")


def keep_resolution(stage: nn.Module, dilation: int = 1) -> None:
    """Set the strides of the convolutions of `stage` to 1 and dilate those of its larger kernels.

    torchvision's `replace_stride_with_dilation` dilates always, and the first block of a stage
    less than the others; here a stage can also keep its resolution without dilation.
    """
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size != (1, 1):
                module.dilation = (dilation, dilation)
                if module.padding != (0, 0):  # (0, 0): the layer pads in its own forward
                    module.padding = (dilation, dilation)


def named_sequence(**modules: nn.Module) -> nn.Sequential:
    """`nn.Sequential` whose children have names."""
    return nn.Sequential(OrderedDict(modules))
