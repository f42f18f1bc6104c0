"""The training step and the inference step of a classifier compile to one graph each."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from c2am.config import FrontDoorConfig
from c2am.methods import Artefacts, build_method
from c2am.models.backbone import Backbone
from c2am.models.classifier import Classifier
from c2am.normalization import Normalization

COMPILERS = ["aot_eager", "inductor"]
# In float64 on a GPU, whose convolutions of float32 are products of TF32.
DEVICES = [
    ("cpu", torch.float32),
    pytest.param("cuda", torch.float64, marks=pytest.mark.gpu),
]
TOLERANCE = {"rtol": 1.3e-6, "atol": 1e-5}  # of float32, in which the loss is computed
# Inductor calls the C++ compiler, which takes minutes where others keep the processors busy.
pytestmark = pytest.mark.timeout(900)


@dataclass
class Batch:
    images: Tensor
    labels: Tensor


def classifier() -> Classifier:
    """Five stages of one convolution each: what is compiled is our part."""
    channels = (4, 4, 4, 4, 6)
    stages = [
        nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())
        for i, o in zip((3, *channels), channels, strict=False)
    ]
    normalization = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    strides = (2, 4, 8, 16, 32)
    backbone = Backbone(stages, channels=channels, strides=strides, normalization=normalization)
    return Classifier(backbone, 5)


def gradients(
    loss: Callable[..., dict[str, Tensor]], net: Classifier, batch: Batch
) -> list[Tensor]:
    value = loss(net, batch, 0.0)["classification"]
    return [value.detach(), *torch.autograd.grad(value, list(net.parameters()))]


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_training_step_of_c2am(compiler: str, device: str, dtype: torch.dtype) -> None:
    net = classifier().to(device, dtype)
    images, labels = torch.randn(3, 3, 64, 96), (torch.rand(3, 5) > 0.5).float()
    batch = Batch(images.to(device, dtype), labels.to(device))
    method = build_method("c2am", FrontDoorConfig(pooling="lse"))
    method.prepare(net, Artefacts(torch.rand(5, 8, 8, device=device)), 0)
    compiled = torch.compile(method.loss, fullgraph=True, backend=compiler)
    results, expected = (gradients(loss, net, batch) for loss in (compiled, method.loss))
    assert_close(results, expected, **TOLERANCE)


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_inference_step(compiler: str, device: str, dtype: torch.dtype) -> None:
    net = classifier().to(device, dtype).eval()
    method = build_method("cam", FrontDoorConfig())
    compiled = torch.compile(method.class_maps, fullgraph=True, backend=compiler)
    views = torch.randn(2, 2, 3, 64, 96).to(device, dtype)
    for present in (torch.rand(2, 5) > 0.5, torch.zeros(2, 5, dtype=torch.bool)):
        arguments = (net, views, present, ["a", "b"])
        assert_close(compiled(*arguments), method.class_maps(*arguments), **TOLERANCE)
