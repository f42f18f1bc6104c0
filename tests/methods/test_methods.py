import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from c2am.config import ClassifierConfig, FrontDoorConfig
from c2am.methods import Artefacts, build_method, method_names
from c2am.models.classifier import build_classifier

CLASSES = 5
TRAINED = ["c2am", "constant", "continued"]


@dataclass
class Batch:
    images: torch.Tensor
    labels: torch.Tensor


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_classifier(ClassifierConfig(backbone="resnet18", weights="none"), CLASSES)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, 64, 64, generator=generator)
    labels = (torch.rand(3, CLASSES, generator=generator) > 0.5).float()
    return Batch(images, labels)


def prepared(name, net, global_cam=None, **options):
    method = build_method(name, FrontDoorConfig(**options))
    if global_cam is None:
        global_cam = torch.rand(CLASSES, 16, 16, generator=torch.Generator().manual_seed(2))
    method.prepare(net, Artefacts(global_cam), 0)
    return method


def test_methods_are_the_files_of_the_folder():
    assert method_names() == ["c2am", "cam", "constant", "continued"]
    assert [build_method(name, FrontDoorConfig()).name for name in method_names()] == method_names()


@pytest.mark.parametrize("name", ["method", "seam", "__init__", "../cam"])
def test_unknown_methods_are_refused(name):
    with pytest.raises(ValueError, match="expected one of c2am, cam, constant, continued"):
        build_method(name, FrontDoorConfig())


def test_only_cam_does_not_train():
    traits = {name: build_method(name, FrontDoorConfig()).trains for name in method_names()}
    assert traits == {"c2am": True, "cam": False, "constant": True, "continued": True}
    needs = {name: build_method(name, FrontDoorConfig()).needs for name in method_names()}
    assert {name for name, artefacts in needs.items() if artefacts} == {"c2am"}


def test_cam_has_no_loss(net, batch):
    with pytest.raises(NotImplementedError, match="cam does not train"):
        prepared("cam", net).loss(net, batch, 0.0)


def test_continued_is_the_soft_margin_loss(net, batch):
    loss = prepared("continued", net).loss(net, batch, 0.0)
    expected = F.multilabel_soft_margin_loss(net(batch.images).logits, batch.labels)
    torch.testing.assert_close(loss, {"classification": expected})


def test_constant_scales_the_logits(net, batch):
    loss = prepared("constant", net, constant=0.15).loss(net, batch, 0.0)
    expected = F.multilabel_soft_margin_loss(0.15 * net(batch.images).logits, batch.labels)
    torch.testing.assert_close(loss, {"classification": expected})


def test_c2am_scales_each_logit_by_the_mean_of_its_map(net, batch):
    global_cam = torch.rand(CLASSES, 16, 16)
    method = prepared("c2am", net, global_cam, gamma=2.0)
    expected = F.multilabel_soft_margin_loss(
        2.0 * global_cam.mean(dim=(1, 2)) * net(batch.images).logits, batch.labels
    )
    torch.testing.assert_close(method.loss(net, batch, 0.0), {"classification": expected})


def test_mean_pooling_of_a_constant_map_is_the_method_constant(net, batch):
    """Eq. 6 of the paper: only the mean of the map matters, for the gradients too."""
    layout = torch.rand(CLASSES, 16, 16)
    layout *= 0.2 / layout.mean(dim=(1, 2), keepdim=True)
    twin = copy.deepcopy(net)
    prepared("c2am", net, layout).loss(net, batch, 0.0)["classification"].backward()
    prepared("constant", twin, constant=0.2).loss(twin, batch, 0.0)["classification"].backward()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_pooling_and_probability_reach_the_loss(net, batch):
    settings = [{}, {"pooling": "max"}, {"pooling": "lse"}, {"probability": "sigmoid"}]
    losses = [
        prepared("c2am", net, **options).loss(net, batch, 0.0)["classification"].item()
        for options in settings
    ]
    assert len(set(losses)) == len(losses)


def test_c2am_without_the_global_cam_says_which_stage_to_run(net):
    with pytest.raises(ValueError, match="global_cam"):
        build_method("c2am", FrontDoorConfig()).prepare(net, Artefacts(), 0)


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_lowers_the_loss(net, batch, name):
    method = prepared(name, net.train())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = method.loss(net, batch, 0.0)["classification"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


@pytest.mark.parametrize("name", TRAINED)
def test_statistics_of_the_unscaled_logits_are_kept(net, batch, name):
    method = prepared(name, net)
    method.loss(net, batch, 0.0)
    output = net(batch.images)
    expected = output.logits[batch.labels > 0.5].mean()
    torch.testing.assert_close(method.statistics["positive_logit"], expected.detach())
    torch.testing.assert_close(method.statistics["feature"], output.features.mean().detach())


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("name", ["cam", *TRAINED])
def test_class_maps(net, name, flip):
    image = torch.randn(2, 3, 65, 80)
    views = torch.stack([image, image.flip(-1)] if flip else [image], dim=1)
    present = torch.tensor([[True, False, False, True, False], [False, True, False, False, False]])
    maps = prepared(name, net).class_maps(net.eval(), views, present, ["a", "b"])
    scores = [
        torch.einsum("zc,bchw->bzhw", net.weight, net(v).features).relu() for v in views.unbind(1)
    ]
    merged = scores[0] + scores[1].flip(-1) if flip else scores[0]
    torch.testing.assert_close(maps, merged[present])
    assert maps.shape == (3, 5, 5)
    assert not maps.requires_grad


@pytest.mark.parametrize("name", TRAINED)
def test_losses_and_maps_are_float32_under_autocast(net, batch, name):
    method = prepared(name, net)
    present = torch.ones(3, CLASSES, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(batch.images).features.dtype == torch.bfloat16
        loss = method.loss(net, batch, 0.0)["classification"]
        maps = method.class_maps(net, batch.images[:, None], present, ["a", "b", "c"])
    assert loss.dtype == maps.dtype == torch.float32


def test_losses_compile_without_a_graph_break(net, batch):
    method = prepared("c2am", net)
    compiled = torch.compile(method.loss, backend="eager", fullgraph=True)
    loss = compiled(net, batch, 0.5)["classification"]
    torch.testing.assert_close(loss, method.loss(net, batch, 0.5)["classification"])
