"""Stage `global_cam` against a plain pass over the images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from c2am.data import read_image
from c2am.stages import global_cam
from c2am.workspace import read_tensors


def _views(context, net, image_id: str) -> torch.Tensor:
    """The image and its mirror at scale 1, (2, 3, H, W)."""
    image = torch.from_numpy(read_image(context.dataset.image_path(image_id)).copy())
    mean, std = (
        torch.tensor(v) for v in (net.backbone.normalization.mean, net.backbone.normalization.std)
    )
    x = ((image - mean) / std).permute(2, 0, 1)
    return torch.stack([x, x.flip(-1)])


def _naive(context, net, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    total, count = torch.zeros(8, size, size), torch.zeros(8, dtype=torch.int64)
    for image_id in context.dataset.ids("train"):
        views = _views(context, net, image_id)
        features = net.backbone(views)[-1]
        maps = torch.einsum("vchw,zc->vzhw", features, net.weight).relu()
        maps = maps[0] + maps[1].flip(-1)
        height, width = (-(-side // 4) for side in views.shape[-2:])
        strided = F.interpolate(maps[None], (height, width), mode="bilinear")
        square = F.interpolate(strided, (size, size), mode="bilinear")[0]
        for z in np.flatnonzero(context.dataset.labels(image_id)):
            if square[z].any():
                total[z] += square[z] / (square[z].max() + 1e-5)
                count[z] += 1
    return total, count


@pytest.fixture
def context(make_context, config):
    config.cam.scales = (1.0,)
    return make_context("global_cam")


def test_mean_of_the_normalised_maps(context, write_network):
    net = write_network(context, "classifier")
    with torch.inference_mode():
        total, count = _naive(context, net, 12)
    metrics = global_cam.run(context)
    tensors = read_tensors(context.folder / "global_cam.safetensors")
    assert torch.equal(tensors["count"], count)
    assert count.sum() > 0
    # JPEG decoders differ by a grey level here and there.
    torch.testing.assert_close(tensors["total"].float(), total, rtol=0.02, atol=0.02)
    mean = tensors["total"] / count.clamp_min(1).view(-1, 1, 1)
    torch.testing.assert_close(tensors["global_cam"], mean.float())
    assert 0 <= tensors["global_cam"].min() <= tensors["global_cam"].max() <= 1
    classes = context.dataset.classes
    assert metrics["images"] == dict(zip(classes, count.tolist(), strict=True))
    means = tensors["global_cam"].mean((1, 2)).tolist()
    assert metrics["mean"] == pytest.approx(dict(zip(classes, means, strict=True)))


def test_a_killed_pass_continues_to_the_same_result(context, write_network, monkeypatch):
    write_network(context, "classifier")
    global_cam.run(context)
    whole = read_tensors(context.folder / "global_cam.safetensors")
    monkeypatch.setattr(global_cam, "_SAVE_EVERY", 1)
    strided_maps = global_cam.strided_maps
    done = []

    def die(context, method, net, batch):
        if done:
            raise KeyboardInterrupt
        done.extend(batch.ids)
        return strided_maps(context, method, net, batch)

    monkeypatch.setattr(global_cam, "strided_maps", die)
    with pytest.raises(KeyboardInterrupt):
        global_cam.run(context)
    (partial,) = context.folder.glob("partial-*")

    def rest(context, method, net, batch):
        assert not set(batch.ids) & set(done)
        return strided_maps(context, method, net, batch)

    monkeypatch.setattr(global_cam, "strided_maps", rest)
    global_cam.run(context)
    again = read_tensors(context.folder / "global_cam.safetensors")
    assert not partial.exists()
    assert torch.equal(again["count"], whole["count"])
    torch.testing.assert_close(again["total"], whole["total"], rtol=1e-5, atol=1e-5)
