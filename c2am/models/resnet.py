"""ResNet backbones: torchvision's networks and ImageNet weights (He et al. 2016)."""

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet

from c2am.models.backbone import Backbone, keep_resolution, named_sequence
from c2am.models.convert import convert_checkpoint
from c2am.models.weights import WeightsError, drop_keys, load_state, read_state_dict
from c2am.normalization import Normalization
from c2am.progress import shown

CAFFE = "resnet101_caffe"
NAMES = ("resnet18", "resnet50", "resnet101", CAFFE)

_CAFFE = Normalization(mean=(122.675, 116.669, 104.008), std=(1.0, 1.0, 1.0))
_IMAGENET = Normalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def build(name: str, weights: str, output_stride: int) -> Backbone:
    """A torchvision ResNet as a backbone; see `build_backbone`."""
    net = torchvision.models.get_model(name.removesuffix("_caffe"), weights=None)
    width = net.fc.in_features
    net.fc = nn.Identity()
    if name == CAFFE:
        _set_caffe_strides(net)
    if weights != "none":
        state, source = _pretrained(name, weights)
        load_state(net, drop_keys(state, ["fc."]), source)
    _set_output_stride(net, output_stride)
    stem = named_sequence(conv1=net.conv1, bn1=net.bn1, relu=net.relu, maxpool=_pool(net))
    return Backbone(
        (stem, net.layer1, net.layer2, net.layer3, net.layer4),
        channels=(64, *(width // 8 * 2**i for i in range(4))),
        strides=tuple(min(stride, output_stride) for stride in (4, 4, 8, 16, 32)),
        normalization=_CAFFE if name == CAFFE else _IMAGENET,
    )


class _MaxPool(nn.MaxPool2d):
    """The stem's 3x3 pooling of stride 2, of values that are not negative."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not torch.compiler.is_compiling():
            return super().forward(x)
        # Whether the last window reaches outside is a branch on the sides, and another graph. So
        # the image is first padded for the windows to fit; zeros are no maximum beside others.
        after = [2 - side % 2 if self.ceil_mode else side % 2 for side in x.shape[:-3:-1]]
        return F.max_pool2d(F.pad(x, (1, after[0], 1, after[1])), 3, 2)


def _pool(net: ResNet) -> nn.MaxPool2d:
    return _MaxPool(3, stride=2, padding=1, ceil_mode=net.maxpool.ceil_mode)


def _set_output_stride(net: ResNet, output_stride: int) -> None:
    if output_stride == 16:
        keep_resolution(net.layer4)
    elif output_stride == 8:
        keep_resolution(net.layer3, dilation=2)
        keep_resolution(net.layer4, dilation=4)


def _set_caffe_strides(net: ResNet) -> None:
    """The first ResNets, and so deeplab-pytorch, stride in the first convolution of a block."""
    net.maxpool.ceil_mode = True
    for stage in ("layer2", "layer3", "layer4"):
        block = net.get_submodule(f"{stage}.0")
        first, second = block.get_submodule("conv1"), block.get_submodule("conv2")
        first.stride, second.stride = second.stride, first.stride


def _pretrained(name: str, weights: str) -> tuple[dict[str, Tensor], str]:
    if name == CAFFE:
        return _pretrained_caffe(weights), weights
    if weights != "imagenet":
        return read_state_dict(Path(weights)), weights
    # V1, which every method of this field starts from; the later V2 weights are trained
    # otherwise and give other CAMs.
    entry = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state = entry.get_state_dict(progress=shown(), check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the ImageNet weights of {name} could not be downloaded from {entry.url} ({error}); "
            "fetch that file on another machine and give its path as `weights`"
        ) from error
    return dict(state), entry.url


def _pretrained_caffe(weights: str) -> dict[str, Tensor]:
    if weights == "imagenet":
        raise WeightsError(f"there is no download of the weights of {CAFFE}: give a file")
    state = drop_keys(convert_checkpoint(weights, "segmenter"), ["aspp."])
    return {k.removeprefix("backbone.").removeprefix("stem."): v for k, v in state.items()}
