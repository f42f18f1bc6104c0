"""ResNet backbones: torchvision's networks and ImageNet weights (He et al. 2016)."""

from pathlib import Path

import torchvision
from torch import Tensor, nn

from c2am.models.backbone import Backbone, keep_resolution, named_sequence
from c2am.models.weights import WeightsError, drop_keys, load_state, read_state_dict
from c2am.normalization import Normalization

NAMES = ("resnet18", "resnet50", "resnet101")

_IMAGENET = Normalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def build(name: str, weights: str, output_stride: int) -> Backbone:
    """A torchvision ResNet as a backbone; see `build_backbone`."""
    net = torchvision.models.get_model(name, weights=None)
    width = net.fc.in_features
    net.fc = nn.Identity()
    if weights != "none":
        state, source = _pretrained(name, weights)
        load_state(net, drop_keys(state, ["fc."]), source)
    _set_output_stride(net, output_stride)
    stem = named_sequence(conv1=net.conv1, bn1=net.bn1, relu=net.relu, maxpool=net.maxpool)
    return Backbone(
        (stem, net.layer1, net.layer2, net.layer3, net.layer4),
        channels=(64, *(width // 8 * 2**i for i in range(4))),
        strides=tuple(min(stride, output_stride) for stride in (4, 4, 8, 16, 32)),
        normalization=_IMAGENET,
    )


def _set_output_stride(net: nn.Module, output_stride: int) -> None:
    if output_stride == 16:
        keep_resolution(net.get_submodule("layer4"))
    elif output_stride == 8:
        keep_resolution(net.get_submodule("layer3"), dilation=2)
        keep_resolution(net.get_submodule("layer4"), dilation=4)


def _pretrained(name: str, weights: str) -> tuple[dict[str, Tensor], str]:
    if weights != "imagenet":
        return read_state_dict(Path(weights)), weights
    # V1, which every method of this field starts from; the later V2 weights are trained
    # otherwise and give other CAMs.
    entry = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the ImageNet weights of {name} could not be downloaded from {entry.url} ({error}); "
            "fetch that file on another machine and give its path as `weights`"
        ) from error
    return dict(state), entry.url
