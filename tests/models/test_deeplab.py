import pytest
import torch
import torch.nn.functional as F

from c2am.config import SegmenterConfig
from c2am.models.deeplab import RATES, build_segmenter


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_segmenter(SegmenterConfig(backbone="resnet18", weights="none"), 5)


def test_logits_at_stride_8(net):
    assert net(torch.rand(2, 3, 65, 99)).shape == (2, 6, 9, 13)


def test_logits_at_stride_16():
    config = SegmenterConfig(backbone="resnet18", weights="none", output_stride=16)
    net = build_segmenter(config, 5)
    assert net(torch.rand(2, 3, 65, 99)).shape == (2, 6, 5, 7)
    assert [conv.dilation for conv in net.aspp] == [(3, 3), (6, 6), (9, 9), (12, 12)]


def test_aspp_sums_its_rates(net):
    x = torch.rand(1, 3, 64, 64)
    features = net.backbone(x)[-1]
    expected = sum(
        F.conv2d(features, conv.weight, conv.bias, padding=rate, dilation=rate)
        for conv, rate in zip(net.aspp, (6, 12, 18, 24), strict=True)
    )
    assert RATES == (6, 12, 18, 24)
    torch.testing.assert_close(net(x), expected)


def test_multi_scale_is_the_maximum_over_scales(net):
    x = torch.rand(1, 3, 64, 96)
    logits, fused = net.multi_scale(x, (1.0, 0.5))
    half = net(F.interpolate(x, size=(32, 48), mode="bilinear", align_corners=False))
    assert [each.shape[2:] for each in logits] == [(8, 12), (4, 6)]
    torch.testing.assert_close(logits[0], net(x))
    torch.testing.assert_close(logits[1], half)
    resized = F.interpolate(half, size=(8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fused, torch.maximum(net(x), resized))
    torch.testing.assert_close(net.fused(x, (1.0, 0.5)), fused)


@pytest.mark.parametrize("size", [(1, 1), (1, 40)])
def test_a_scale_leaves_a_pixel_of_every_image(net, size):
    logits, fused = net.multi_scale(torch.rand(2, 3, *size), (1.0, 0.5))
    assert logits[1].shape[2] == 1
    assert fused.shape == logits[0].shape


def test_training_leaves_the_batch_norms_alone(net):
    config = SegmenterConfig(lr=1.0, head_lr=10.0)
    groups = net.train().parameter_groups(config)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    logits, fused = net.multi_scale(torch.randn(2, 3, 64, 64), (1.0, 0.5))
    sum(each.square().mean() for each in [*logits, fused]).backward()
    torch.optim.SGD(groups, lr=1.0).step()
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    convs = {k for k, v in before.items() if v.dim() == 4}
    biases = {k for k in before if k.startswith("aspp.") and k.endswith("bias")}
    assert changed == convs | biases


def test_parameter_groups(net):
    config = SegmenterConfig(lr=1e-3, head_lr=1e-2)
    backbone, weights, biases = net.parameter_groups(config)
    assert [g["lr"] for g in (backbone, weights, biases)] == [1e-3, 1e-2, 2e-2]
    assert [g.get("weight_decay") for g in (backbone, weights, biases)] == [None, None, 0.0]
    assert {p.dim() for p in weights["params"]} == {4}
    assert {p.dim() for p in biases["params"]} == {1}
    assert len(weights["params"]) == len(biases["params"]) == 4
