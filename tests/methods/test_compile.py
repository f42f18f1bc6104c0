"""The training step and the inference step of a classifier compile to one graph each."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.testing import assert_close

from c2am import compiling
from c2am.config import FrontDoorConfig
from c2am.methods import Artefacts, Method, build_method
from c2am.models.backbone import Backbone, build_backbone
from c2am.models.classifier import Classifier
from c2am.models.folding import folded_while_training
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


def classifier(batch_norms: bool = False) -> Classifier:
    """Five stages of one convolution each: what is compiled is our part."""
    channels = (4, 4, 4, 4, 6)
    stages = [
        nn.Sequential(
            nn.Conv2d(i, o, 3, stride=2, padding=1),
            nn.BatchNorm2d(o) if batch_norms else nn.Identity(),
            nn.ReLU(),
        )
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
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [value.detach(), *torch.autograd.grad(value, trained)]


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


def test_training_step_with_folded_batch_norms() -> None:
    """One graph, in which no batch norm is left."""
    torch.compiler.reset()
    counters.clear()
    net = classifier(batch_norms=True).train()
    net.backbone.freeze(batch_norms=True, stages=1)
    batch = Batch(torch.randn(3, 3, 64, 96), (torch.rand(3, 5) > 0.5).float())
    method = build_method("continued", FrontDoorConfig())
    expected = gradients(method.loss, net, batch)
    graphs = []

    def note(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    with folded_while_training(net):
        net.compile(backend=note)
        results = gradients(method.loss, net, batch)
    assert_close(results, expected)
    assert len(graphs) == 1
    assert "batch_norm" not in graphs[0]
    assert graphs[0].count("conv2d(") == 6


@pytest.mark.parametrize("compiler", COMPILERS)
def test_inference_of_all_sizes_compiles_two_graphs(compiler: str) -> None:
    """Images of many sizes, several at once and one alone, in bfloat16; the maps are the same.

    Inductor compiles the first of the two only: it takes its time.
    """
    torch.compiler.reset()
    counters.clear()
    net = classifier().eval().requires_grad_(False)
    method = build_method("cam", FrontDoorConfig())
    batches = [(2, 64, 96), (3, 97, 65), (1, 33, 50), (8, 70, 41), (1, 128, 66), (4, 500, 375)]
    batches = [each for each in batches if compiler == "aot_eager" or each[0] > 1]
    generator = torch.Generator().manual_seed(3)
    views = [torch.randn(count, 1, 3, *size, generator=generator) for count, *size in batches]
    expected = [maps_of(method, net, each) for each in views]
    device = torch.device("cpu")
    compiling.compile_for_inference(net, device, True, backend=compiler)
    for each, maps in zip(views, expected, strict=True):
        # Between two operations that are fused, bfloat16 is not rounded to.
        assert_close(maps_of(method, net, each), maps, rtol=0, atol=0.02 * float(maps.max()))
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
    assert not counters["graph_break"]


class Stem(nn.Module):
    """The first layers of a backbone, where sides may be odd."""

    def __init__(self, name: str) -> None:
        super().__init__()
        backbone = build_backbone(name, "none")
        self.first, self.second = backbone.stem, backbone.layer1[:1]

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet101_caffe", "efficientnet_lite0"])
def test_a_backbone_is_one_graph_for_all_sizes(name: str) -> None:
    """Square, even and odd sides: what is padded or left out does not make another graph."""
    torch.compiler.reset()
    counters.clear()
    net = Stem(name).eval()
    sizes = [(40, 56), (48, 48), (41, 57), (42, 39), (63, 38), (37, 44), (47, 55), (61, 61)]
    with torch.inference_mode():
        images = [torch.randn(2, 3, *size) for size in sizes]
        expected = [net(each) for each in images]
        compiling.compile_for_inference(net, torch.device("cpu"), True, backend="eager")
        for each, features in zip(images, expected, strict=True):
            assert_close(net(each), features)
    assert counters["stats"]["unique_graphs"] == 1


def maps_of(method: Method, net: Classifier, views: Tensor) -> Tensor:
    present = torch.ones(len(views), 5, dtype=torch.bool)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return method.class_maps(net, views, present, [""] * len(views))


def test_compiling_is_for_gpus_unless_asked_for() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    settings = [(device, setting) for device in (cpu, gpu) for setting in (None, True, False)]
    assert [compiling.is_wanted(*each) for each in settings] == [0, 1, 0, 1, 1, 0]
    net = compiling.compile_for_inference(classifier(), cpu, None)
    assert net._compiled_call_impl is None


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
