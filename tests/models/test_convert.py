"""Checkpoints with the names of the published formats, from networks put together as theirs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50

from c2am.config import ClassifierConfig, IrnConfig, SegmenterConfig
from c2am.models.backbone import build_backbone
from c2am.models.classifier import build_classifier
from c2am.models.convert import convert_checkpoint
from c2am.models.deeplab import build_segmenter
from c2am.models.irn import build_irn
from c2am.models.weights import WeightsError, load_state


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    net = resnet50()
    net.layer4[0].conv2.stride = net.layer4[0].downsample[0].stride = (1, 1)
    del net.fc
    randomize(net)
    return net.eval()


def randomize(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def cam_checkpoint(resnet, head):
    """The names of irn's `resnet50_cam.Net`, which has each layer under several."""
    layers = resnet.state_dict()
    return {
        **{f"resnet50.{name}": tensor for name, tensor in layers.items()},
        "stage1.0.weight": layers["conv1.weight"],
        "stage2.0.0.conv1.weight": layers["layer2.0.conv1.weight"],
        "backbone.3.0.0.conv1.weight": layers["layer4.0.conv1.weight"],
        "newly_added.0.weight": head,
        "classifier.weight": head,
    }


def test_classifier_gives_the_logits_of_the_original(resnet, tmp_path):
    head = torch.randn(20, 2048, 1, 1)
    torch.save(cam_checkpoint(resnet, head), tmp_path / "cam.pth")
    ours = build_classifier(ClassifierConfig(weights="none"), 20).eval()
    load_state(ours, convert_checkpoint(tmp_path / "cam.pth"), "cam")
    x = torch.randn(1, 3, 65, 80)
    with torch.no_grad():
        features = stages(resnet, x)[-1]
        expected = features.mean((2, 3)) @ head[:, :, 0, 0].T
    # Other memory format, other order of sums.
    torch.testing.assert_close(ours(x).logits.detach(), expected, rtol=1e-5, atol=1e-2)


def stages(resnet, x):
    features = [resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))]
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        features.append(layer(features[-1]))
    return features


def reduced(channels, width, groups, scale=None):
    layers = [nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width)]
    if scale:
        layers.append(nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU())


class Boundaries(nn.Module):
    """Registers its layers under the names of irn's `resnet50_irn.Net`."""

    def __init__(self, resnet):
        super().__init__()
        self.resnet50 = resnet
        channels, widths = (64, 256, 512, 1024, 2048), (64, 128, 256, 256, 256)
        for i, scale in enumerate((None, None, 2, 4, 4)):
            self.add_module(f"fc_edge{i + 1}", reduced(channels[i], 32, 4, scale))
        self.fc_edge6 = nn.Conv2d(160, 1, 1)
        for i, scale in enumerate((None, None, None, 2, 2)):
            groups = 8 if i == 0 else 16
            self.add_module(f"fc_dp{i + 1}", reduced(channels[i], widths[i], groups, scale))
        self.fc_dp6 = reduced(768, 256, 16, 2)
        shift = nn.BatchNorm2d(2, affine=False)
        nn.init.uniform_(shift.running_mean, -3, 3)
        last = [nn.Conv2d(256, 2, 1, bias=False), shift]
        self.fc_dp7 = nn.Sequential(*reduced(448, 256, 16), *last)

    def forward(self, x):
        xs = stages(self.resnet50, x)
        at4, at8 = xs[0].shape[-2:], xs[2].shape[-2:]
        edges = [getattr(self, f"fc_edge{i + 1}")(x) for i, x in enumerate(xs)]
        dps = [getattr(self, f"fc_dp{i + 1}")(x) for i, x in enumerate(xs)]
        fused = self.fc_dp6(torch.cat([cut(dp, at8) for dp in dps[2:]], dim=1))
        dp = self.fc_dp7[:4](torch.cat([*dps[:2], cut(fused, at4)], dim=1))
        edge = self.fc_edge6(torch.cat([cut(edge, at4) for edge in edges], dim=1))
        return edge, dp - self.fc_dp7[4].running_mean.view(1, 2, 1, 1)


def irn_checkpoint(net):
    """The other names of its layers, and the tables of its loss."""
    state = net.state_dict()
    return state | {
        "stage2.0.0.conv1.weight": state["resnet50.layer1.0.conv1.weight"],
        "backbone.4.0.0.conv1.weight": state["resnet50.layer4.0.conv1.weight"],
        "edge_layers.5.weight": state["fc_edge6.weight"],
        "dp_layers.6.3.weight": state["fc_dp7.3.weight"],
        "mean_shift.running_mean": state["fc_dp7.4.running_mean"],
        "path_indices_0": torch.zeros(2, 3),
        "disp_target": torch.zeros(1, 2, 3, 1),
    }


def cut(x, size):
    return x[..., : size[0], : size[1]]


def test_irn_gives_the_outputs_of_the_original(resnet, tmp_path):
    theirs = Boundaries(resnet).eval()
    torch.save(irn_checkpoint(theirs), tmp_path / "irn.pth")
    ours = build_irn(IrnConfig(weights="none")).eval()
    load_state(ours, convert_checkpoint(tmp_path / "irn.pth"), "irn")
    x = torch.randn(1, 3, 65, 87)
    with torch.no_grad():
        for found, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(found, expected)


def unit(inside, outside, kernel, stride=1, dilation=1):
    padding = 3 if kernel == 7 else dilation * (kernel // 2)
    conv = nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False)
    net = nn.Sequential()
    net.add_module("conv", conv)
    net.add_module("bn", nn.BatchNorm2d(outside))
    return net


class Bottleneck(nn.Module):
    def __init__(self, inside, middle, stride, dilation, shortcut):
        super().__init__()
        self.reduce = unit(inside, middle, 1, stride)
        self.conv3x3 = unit(middle, middle, 3, 1, dilation)
        self.increase = unit(middle, 4 * middle, 1)
        if shortcut:
            self.shortcut = unit(inside, 4 * middle, 1, stride)

    def forward(self, x):
        h = self.increase(F.relu(self.conv3x3(F.relu(self.reduce(x)))))
        return F.relu(h + (self.shortcut(x) if hasattr(self, "shortcut") else x))


class DeepLabV2(nn.Module):
    """Registers its layers under the names of deeplab-pytorch; BGR input."""

    def __init__(self, num_classes):
        super().__init__()
        self.layer1 = nn.Module()
        self.layer1.conv1 = unit(3, 64, 7, 2)
        inside = 64
        for i, (blocks, stride, dilation) in enumerate(
            [(3, 1, 1), (4, 2, 1), (23, 1, 2), (3, 1, 4)]
        ):
            layer, middle = nn.Sequential(), 64 * 2**i
            for block in range(blocks):
                step = stride if block == 0 else 1
                bottleneck = Bottleneck(inside, middle, step, dilation, block == 0)
                layer.add_module(f"block{block + 1}", bottleneck)
                inside = 4 * middle
            self.add_module(f"layer{i + 2}", layer)
        self.aspp = nn.Module()
        for i, rate in enumerate((6, 12, 18, 24)):
            conv = nn.Conv2d(inside, num_classes, 3, padding=rate, dilation=rate)
            self.aspp.add_module(f"c{i}", conv)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.layer1.conv1(x)), 3, 2, 1, ceil_mode=True)
        x = self.layer5(self.layer4(self.layer3(self.layer2(x))))
        return sum(conv(x) for conv in self.aspp.children())


@pytest.fixture(scope="module")
def deeplab():
    torch.manual_seed(0)
    net = DeepLabV2(4).eval()
    randomize(net)
    return net


@pytest.mark.parametrize("prefix", ["base.", "scale.", ""])
def test_segmenter_gives_the_logits_of_the_original(deeplab, tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in deeplab.state_dict().items()}
    torch.save(state, tmp_path / "deeplab.pth")
    config = SegmenterConfig(backbone="resnet101_caffe", weights="none")
    ours = build_segmenter(config, 3).eval()
    load_state(ours, convert_checkpoint(tmp_path / "deeplab.pth"), "deeplab")
    bgr = torch.rand(1, 3, 48, 50) * 255 - torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours(bgr.flip(1)), deeplab(bgr))
    assert ours.backbone.normalization.mean == (122.675, 116.669, 104.008)


def test_names_of_the_older_deeplab(deeplab, tmp_path):
    older = {
        name.replace("shortcut", "proj").replace("aspp.", "aspp.stages."): tensor
        for name, tensor in deeplab.state_dict().items()
    }
    torch.save(deeplab.state_dict(), tmp_path / "new.pth")
    torch.save(older, tmp_path / "old.pth")
    new, old = (convert_checkpoint(tmp_path / f"{age}.pth") for age in ("new", "old"))
    assert new.keys() == old.keys()
    assert all(torch.equal(new[name], old[name]) for name in new)


def test_caffe_backbone_starts_from_a_deeplab_v1_file(deeplab, tmp_path):
    state = {k: v for k, v in deeplab.state_dict().items() if not k.startswith("aspp.")}
    torch.save(state | {"fc.weight": torch.zeros(9, 2048, 1, 1)}, tmp_path / "v1.pth")
    net = build_backbone("resnet101_caffe", str(tmp_path / "v1.pth"), output_stride=8)
    assert torch.equal(net.stem.conv1.weight, state["layer1.conv1.conv.weight"].flip(1))
    with pytest.raises(WeightsError, match="resnet101_caffe: give a file"):
        build_backbone("resnet101_caffe", "imagenet")


def test_unknown_names_are_listed(tmp_path):
    state = {
        "resnet50.conv1.weight": torch.zeros(64, 3, 7, 7),
        "classifier.weight": torch.zeros(20, 2048, 1, 1),
        "attention.weight": torch.zeros(1),
    }
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"read as classifier: unknown .*attention.weight"):
        convert_checkpoint(tmp_path / "other.pth")


def test_a_file_without_the_backbone_is_refused(tmp_path):
    state = {"classifier.weight": torch.zeros(20, 2048, 1, 1)}
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match="no weights of the backbone"):
        convert_checkpoint(tmp_path / "head.pth")


def test_unknown_formats_and_kinds_are_refused(tmp_path):
    torch.save({"net.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"no known format.*net.0.weight"):
        convert_checkpoint(tmp_path / "x.pth")
    with pytest.raises(ValueError, match="kind = 'seam'"):
        convert_checkpoint(tmp_path / "x.pth", "seam")
