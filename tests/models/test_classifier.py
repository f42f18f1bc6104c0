import gc

import pytest
import torch

from c2am.config import ClassifierConfig, TrainConfig
from c2am.models.classifier import ClassifierOutput, build_classifier, logit_statistics


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_classifier(ClassifierConfig(backbone="resnet18", weights="none"), 5)


def test_shapes_at_an_odd_size(net):
    output = net(torch.rand(2, 3, 65, 99))
    assert output.logits.shape == (2, 5)
    assert output.features.shape == (2, 512, 5, 7)
    assert len(output.stages) == 5
    assert output.features is output.stages[-1]
    assert net.weight.shape == (5, 512)


def test_logits_are_the_mean_of_the_class_maps(net):
    output = net(torch.rand(2, 3, 64, 64))
    maps = torch.einsum("zc,bchw->bzhw", net.weight, output.features)
    torch.testing.assert_close(output.logits, maps.mean(dim=(2, 3)))


def test_parameter_groups_hold_each_trained_parameter_once(net):
    backbone, head = net.parameter_groups(TrainConfig(lr=0.1, head_lr=1.0))
    assert (backbone["lr"], head["lr"]) == (0.1, 1.0)
    assert head["params"] == [net.head.weight]
    grouped = [id(p) for group in (backbone, head) for p in group["params"]]
    trained = [id(p) for p in net.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert id(net.backbone.stem.conv1.weight) not in grouped
    assert id(net.backbone.layer1[0].bn1.weight) not in grouped
    assert id(net.backbone.layer1[0].conv1.weight) in grouped


def test_no_empty_group_with_a_frozen_backbone():
    config = ClassifierConfig(backbone="resnet18", weights="none", frozen_stages=5)
    groups = build_classifier(config, 5).parameter_groups(config)
    assert len(groups) == 1


def test_config_freezes_what_it_says():
    config = ClassifierConfig(
        backbone="resnet18", weights="none", frozen_stages=3, freeze_bn=False, output_stride=8
    )
    net = build_classifier(config, 5).train()
    assert not net.backbone.layer2[0].conv1.weight.requires_grad
    assert net.backbone.layer3[0].bn1.weight.requires_grad
    assert net.backbone.layer3[0].bn1.training
    assert not net.backbone.layer2[0].bn1.training
    assert net.backbone.strides[-1] == 8


def test_statistics():
    logits = torch.tensor([[1.0, -2.0, 5.0], [3.0, 0.0, -4.0]], requires_grad=True)
    features = torch.full((2, 4, 3, 3), 0.25, requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    statistics = logit_statistics(ClassifierOutput((features,), features, logits), labels)
    assert statistics["positive_logit"].item() == pytest.approx(3.0)
    assert statistics["negative_logit"].item() == pytest.approx(-0.75)
    assert statistics["feature"].item() == pytest.approx(0.25)
    assert not any(value.requires_grad for value in statistics.values())


def test_forward_leaks_nothing(net):
    x = torch.rand(1, 3, 64, 64)

    def run(times):
        for _ in range(times):
            net(x).logits.sum().backward()
        net.zero_grad()
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    assert run(1) == run(20)
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
