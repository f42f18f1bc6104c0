"""Stage `pseudo_masks` on hand-made maps and boundaries."""

import numpy as np
import pytest
import torch

from c2am import ops
from c2am.data import read_mask
from c2am.evaluation import mask_at_threshold
from c2am.stages import pseudo_masks
from c2am.stages.class_maps import ClassMaps
from c2am.workspace import read_tensors

SIZE = (61, 70)  # no multiples of 4


def _blobs() -> torch.Tensor:
    """(2, H, W): a blob of each class, far apart."""
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    blobs = [((y - cy) ** 2 + (x - cx) ** 2) / (2 * 5.0**2) for cy, cx in ((20, 18), (40, 52))]
    return torch.stack(blobs).neg().exp()


def _truth() -> np.ndarray:
    return mask_at_threshold(_blobs(), torch.tensor([0, 2]), 0.5).numpy()


@pytest.fixture
def context(make_context, pictures, write_cams, write_network):
    """Two images with the same maps, one of them without a mask, and a net without boundaries."""
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    pictures.add("scored", image, [0, 2], _truth())
    pictures.add("other", image, [0, 2])
    pictures.add("empty", image, [])
    context = make_context("pseudo_masks", "cam", dataset=pictures)
    for name in ("scored", "other"):
        write_cams(context.own("cam"), name, [0, 2], _blobs())
    write_cams(context.own("cam"), "empty", [], _blobs()[:0])
    net = write_network(context, "irn")
    with torch.no_grad():
        net.edge.fuse.weight.zero_()
        net.edge.fuse.bias.fill_(-30)
    pseudo_masks.write_tensors(context.own("irn") / "weights.safetensors", net.state_dict())
    # One step of the walk then blurs over the eight neighbours, 4 pixels each.
    context.config.pseudo_masks.steps, context.config.pseudo_masks.radius = 1, 2
    return context


def test_without_boundaries_a_blob_stays_where_it_is(context):
    metrics = pseudo_masks.run(context)
    mask = read_mask(context.folder / "scored.png")
    assert mask.shape == SIZE
    assert (mask[20, 18], mask[40, 52]) == (1, 3)
    assert (mask[0, 0], mask[60, 69], mask[60, 0]) == (0, 0, 0)
    assert set(np.unique(mask)) == {0, 1, 3}
    # The kept maps are float16: a pixel on the very border may fall to the other side.
    assert (read_mask(context.folder / "other.png") != mask).mean() < 0.002
    assert metrics["threshold"] == 0.2
    assert metrics["score"]["iou"]["dog"] is None


def test_masks_are_those_of_the_equation(context):
    pseudo_masks.run(context)
    cam = read_tensors(context.own("cam") / "scored.safetensors")["strided"].float()
    edge = torch.full(cam.shape[1:], torch.tensor(-30.0).sigmoid().item())
    walked = ops.random_walk(cam, edge, radius=2, beta=10.0, steps=1, method="power")
    up = torch.nn.functional.interpolate(walked[None], scale_factor=4, mode="bilinear")[0]
    up = up[:, : SIZE[0], : SIZE[1]]
    stacked = torch.cat([torch.full((1, *SIZE), 0.2), up / up.max()])
    expected = torch.tensor([0, 1, 3])[stacked.argmax(0)].numpy()
    mask = read_mask(context.folder / "scored.png")
    # The kept maps are float16: a pixel on the very border may fall to the other side.
    assert (mask != expected).mean() < 0.002


def test_maps_are_kept_where_the_threshold_is_swept(context):
    """An image without a mask is labelled at once; if the sweep chooses, all maps are kept."""

    def kept():
        return sorted(path.stem for path in context.folder.glob("*.safetensors"))

    labelled = ops.launches["label_maps", "native"]
    pseudo_masks.run(context)
    assert kept() == ["scored"]
    assert ops.launches["label_maps", "native"] > labelled
    for path in context.folder.glob("*.png"):
        path.unlink()
    context.config.pseudo_masks.threshold = "best"
    pseudo_masks.run(context)
    assert kept() == ["empty", "other", "scored"]


def test_maps_are_kept_at_stride_4(context):
    pseudo_masks.run(context)
    tensors = read_tensors(context.folder / "scored.safetensors")
    assert tensors["maps"].shape == (2, 16, 18)
    assert tensors["maps"].dtype == torch.float16
    assert tensors["maps"].max() == 1
    assert tensors["classes"].tolist() == [0, 2]


def test_best_threshold_is_the_best_of_the_sweep(context):
    context.config.pseudo_masks.threshold = "best"
    metrics = pseudo_masks.run(context)
    best = max(metrics["curve"], key=lambda point: point[1])
    assert metrics["threshold"] == best[0]
    assert metrics["chosen_on"] == "score"
    # The masks on disk score what the sweep said.
    assert metrics["score"]["miou"] == pytest.approx(best[1], abs=1e-12)
    assert best[1] > 0.7


def test_best_needs_a_mask(context, pictures):
    context.config.pseudo_masks.threshold = "best"
    pictures.masks.clear()
    with pytest.raises(ValueError, match="no image of the list 'train' has a mask"):
        pseudo_masks.run(context)


def test_without_masks_there_is_no_score(context, pictures):
    pictures.masks.clear()
    assert pseudo_masks.run(context) == {"threshold": 0.2, "curve": []}
    assert (context.folder / "scored.png").exists()


def test_an_image_without_labels_is_background(context):
    pseudo_masks.run(context)
    mask = read_mask(context.folder / "empty.png")
    assert mask.shape == SIZE
    assert not mask.any()


def test_walked_maps_are_not_walked_again(context, monkeypatch):
    metrics = pseudo_masks.run(context)
    (context.folder / "scored.png").unlink()
    monkeypatch.setattr(pseudo_masks, "trained_irn", lambda *_: pytest.fail("nothing to walk"))
    assert pseudo_masks.run(context) == metrics


def test_joint_maximum():
    maps = torch.tensor([[[1.0, 2.0]], [[4.0, 0.0]]])
    assert pseudo_masks.joint_normalize(maps).tolist() == [[[0.25, 0.5]], [[1.0, 0.0]]]
    assert not pseudo_masks.joint_normalize(torch.zeros(2, 3, 3)).any()
    assert pseudo_masks.joint_normalize(torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    walked = ClassMaps(torch.tensor([1]), torch.rand(1, 3, 4).half())
    full = pseudo_masks.full_size(walked, (10, 15))
    assert full.maps.shape == (1, 10, 15)
    assert full.maps.max() == 1
