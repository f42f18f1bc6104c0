"""Folded batch norms leave the features as they are."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from c2am.models import build_backbone, fold_batch_norms
from c2am.models.folding import folded_while_training


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


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_lite0"])
def test_folded_while_training_the_gradients_are_the_same(name):
    net = backbone(name).train().requires_grad_(True)
    net.freeze(batch_norms=True, stages=1)
    image = torch.rand(
        2, 3, 65, 97, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    before = {key: value.clone() for key, value in net.state_dict().items()}
    outputs, gradients = features_and_gradients(net, image)
    with folded_while_training(net):
        assert net.state_dict().keys() == before.keys()
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.functional, "batch_norm", lambda *_: pytest.fail("it is folded"))
            folded, found = features_and_gradients(net, image)
    assert norms
    for own, other in zip((*outputs, *gradients), (*folded, *found), strict=True):
        assert_close(other, own, rtol=1e-8, atol=1e-8 * float(own.abs().max()))
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    again, _ = features_and_gradients(net, image)
    assert all(torch.equal(own, other) for own, other in zip(outputs, again, strict=True))


def features_and_gradients(net, image):
    features = net(image)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    loss = sum((feature**2).mean() for feature in features)
    return [feature.detach() for feature in features], torch.autograd.grad(loss, trained)


def test_batch_norms_that_are_trained_are_left_alone():
    net = build_backbone("resnet18", "none").train()
    net.freeze(batch_norms=False, stages=1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with folded_while_training(net):
        assert "forward" in vars(net.stem.bn1)
        assert "forward" not in vars(net.layer1[0].bn1)
    assert net.layer1.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_network_in_training_is_refused():
    net = build_backbone("resnet18", "none").train()
    with pytest.raises(ValueError, match=r"stem\.bn1 is in training mode"):
        fold_batch_norms(net)


def test_a_batch_norm_without_convolution_is_refused():
    net = build_backbone("resnet18", "none").eval()
    net.layer1 = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(64), net.layer1).eval()
    with pytest.raises(ValueError, match=r"layer1\.1 follows no convolution"):
        fold_batch_norms(net)
