import math

import pytest
import torch
import torch.nn.functional as F

from c2am.config import IrnConfig
from c2am.models.irn import boundaries, build_irn, resample


def build(backbone="resnet18", **options):
    if backbone == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    return build_irn(IrnConfig(backbone=backbone, weights="none", **{"crop": 64, **options}))


@pytest.mark.parametrize("size", [(64, 64), (65, 99), (61, 70), (33, 34), (7, 5)], ids=str)
@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_stride_4_for_every_size(backbone, size):
    edge, displacement = build(backbone)(torch.rand(2, 3, *size))
    cells = tuple(math.ceil(side / 4) for side in size)
    assert edge.shape == (2, 1, *cells)
    assert displacement.shape == (2, 2, *cells)


def test_channels_of_the_branches():
    net = build()
    assert [r[0].out_channels for r in net.edge.reduce] == [32] * 5
    assert [r[1].num_groups for r in net.edge.reduce] == [4] * 5
    assert net.edge.fuse.in_channels == 160
    assert [r[0].out_channels for r in net.displacement.reduce] == [64, 128, 256, 256, 256]
    assert [r[1].num_groups for r in net.displacement.reduce] == [8, 16, 16, 16, 16]
    assert net.displacement.fuse8[0].in_channels == 768
    assert net.displacement.fuse4[0].in_channels == 448


def test_only_the_branches_train():
    net = build().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    groups = net.parameter_groups(IrnConfig(lr=0.1, head_lr=1.0))
    edge, displacement = net(torch.randn(2, 3, 64, 64))
    (edge.square().mean() + displacement.square().mean()).backward()
    torch.optim.SGD(groups, lr=0.1).step()
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.startswith(("edge.", "displacement."))}
    assert [group["lr"] for group in groups] == [0.1, 1.0]


def test_mean_displacement_is_subtracted_in_eval_mode_only():
    net, x = build(), torch.randn(1, 3, 64, 64)
    raw = net.train()(x)[1]
    net.displacement_mean.copy_(torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(net.train()(x)[1], raw)
    shifted = net.eval()(x)[1]
    torch.testing.assert_close(shifted, raw - torch.tensor([1.0, -2.0]).view(1, 2, 1, 1))


def test_boundaries_average_the_logits_of_the_mirror():
    net = build(crop=32).eval()
    image = torch.randn(2, 3, 64, 96)
    found = boundaries(net, torch.stack([image, image.flip(-1)], dim=1))
    direct, mirrored = net(image)[0], net(image.flip(-1))[0]
    expected = torch.sigmoid((direct + mirrored.flip(-1)) / 2)[:, 0]
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_boundaries_pad_small_images_as_training_crops_are():
    net = build(crop=80).eval()
    views = torch.randn(1, 2, 3, 50, 99)
    found = boundaries(net, views)
    edge = net(F.pad(views[0], (0, 0, 0, 30)))[0][:, 0, :13]
    torch.testing.assert_close(found[0], torch.sigmoid((edge[0] + edge[1].flip(-1)) / 2))


def test_boundaries_refuse_a_single_view():
    with pytest.raises(ValueError, match="views"):
        boundaries(build(), torch.zeros(1, 1, 3, 64, 64))


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_resample_keeps_cells_over_their_pixels(stride):
    # Each cell holds the column of its centre in pixels; the values survive away from the edge.
    width = 99
    centre = torch.arange(math.ceil(width / stride)) * stride + (stride - 1) / 2
    x = centre.expand(1, 1, 4, -1).contiguous()
    size = (4, math.ceil(width / 4))
    found = resample(x, stride, 4, size)[0, 0, 0]
    expected = torch.arange(size[1]) * 4 + 1.5
    inner = slice(4, -4)
    torch.testing.assert_close(found[inner], expected[inner])
