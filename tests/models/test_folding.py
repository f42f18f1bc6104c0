"""Folded batch norms leave the features as they are."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from c2am.models import build_backbone, fold_batch_norms


def backbone(name: str):
    if name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    net = build_backbone(name, "none").double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.weight, 0.5), (module.bias, -0.5)):
                values.copy_(torch.rand(values.shape, generator=generator) + low)
            module.running_mean.copy_(torch.rand(values.shape, generator=generator) - 0.5)
            module.running_var.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return net


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101_caffe", "efficientnet_lite0"])
def test_features_stay_the_same(name):
    net = backbone(name)
    folded = copy.deepcopy(net)
    fold_batch_norms(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    image = torch.rand(
        2, 3, 65, 97, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    for own, other in zip(net(image), folded(image), strict=True):
        assert own.abs().max() > 1e-6
        assert_close(own, other, rtol=1e-9, atol=1e-9 * float(own.abs().max()))


def test_a_network_in_training_is_refused():
    net = build_backbone("resnet18", "none").train()
    with pytest.raises(ValueError, match=r"stem\.bn1 is in training mode"):
        fold_batch_norms(net)


def test_a_batch_norm_without_convolution_is_refused():
    net = build_backbone("resnet18", "none").eval()
    net.layer1 = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(64), net.layer1).eval()
    with pytest.raises(ValueError, match=r"layer1\.1 follows no convolution"):
        fold_batch_norms(net)
