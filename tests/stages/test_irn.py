"""Stage `irn`."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from c2am import ops
from c2am.data import read_mask
from c2am.models import build_irn
from c2am.stages import irn
from c2am.stages.loaders import inference_loader
from c2am.workspace import read_tensors, write_mask


@pytest.fixture
def context(make_context):
    """A context whose confident labels are the truth."""
    context = make_context("irn", "cam")
    for image_id in context.dataset.ids("train"):
        mask = read_mask(context.dataset.mask_path(image_id))
        write_mask(context.own("irn_labels") / f"{image_id}.png", mask)
    return context


def test_training_ends_with_the_mean_displacement(context):
    metrics = irn.run(context)
    assert metrics["steps"] == 2
    assert np.isfinite(metrics["loss"])
    net = irn.trained_irn(context)
    assert net.displacement_mean.tolist() == metrics["displacement_mean"]
    assert net.displacement_mean.abs().min() > 0
    # With the mean subtracted, the mean over the images is zero.
    ids = context.dataset.ids("train")
    loader = inference_loader(context, ids, net.backbone.normalization)
    with torch.inference_mode():
        means = [net(batch.views[0][:, 0])[1].mean((0, 2, 3)) for batch in loader]
    torch.testing.assert_close(torch.stack(means).mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_continuing_a_finished_training_keeps_its_weights(context):
    first = irn.run(context)
    before = read_tensors(context.folder / "weights.safetensors")
    assert irn.run(context) == first
    after = read_tensors(context.folder / "weights.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def _batch(size: int = 48) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0, 0, 1, 3, 255], dtype=torch.uint8)
    blocks = values[torch.randint(0, 5, (2, size // 8, size // 8), generator=generator)]
    masks = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return SimpleNamespace(
        images=torch.randn(2, 3, size, size, generator=generator), masks=masks, ids=["a", "b"]
    )


def test_the_loss_is_that_of_irn(config):
    torch.manual_seed(0)
    net, batch = build_irn(config.irn), _batch()
    terms = irn.IrnTask(net, config.irn, 8).loss(batch, 0.0)
    edge, displacement = net(batch.images)
    label = batch.masks[:, 2::4, 2::4].long()
    affinity = ops.affinity_loss(edge.sigmoid(), label, radius=4, num_classes=8).total
    offset = ops.displacement_loss(displacement, label, radius=4).total
    assert all(term > 0 for term in terms.values())
    torch.testing.assert_close(sum(terms.values()), affinity + offset)


def test_pairs_are_counted_by_kind(monkeypatch):
    label = _batch(64).masks[:, 2::4, 2::4].long()
    radius = 3
    ones = irn.pair_counts(label, radius)
    assert [count.item() for count in ones] == [1, 1, 1]
    monkeypatch.setattr(irn.distributed, "world_size", lambda: 2)
    counts = [int(count) for count in irn.pair_counts(label, radius)]
    expected = [0, 0, 0]
    height, width, reach = 16, 16, 2
    rows, columns = range(height - reach), range(reach, width - reach)
    for image, y, x in product(range(2), rows, columns):
        for dy, dx in product(range(reach + 1), range(-reach, reach + 1)):
            if (dy == 0 and dx <= 0) or dy * dy + dx * dx >= radius * radius:
                continue
            one, other = int(label[image, y, x]), int(label[image, y + dy, x + dx])
            if 255 not in (one, other):
                kind = 2 if one != other else int(one == 0)
                expected[kind] += 1
    assert counts == expected
    assert min(expected) > 0
