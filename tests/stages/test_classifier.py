"""Stage `classifier`."""

import math

import numpy as np
import pytest
import torch

from c2am.stages import classifier
from c2am.workspace import read_tensors


def test_training_leaves_weights_and_metrics(make_context):
    context = make_context("classifier")
    metrics = classifier.run(context)
    assert metrics["steps"] == 2
    assert math.isfinite(metrics["loss"])
    assert (context.folder / "weights.safetensors").exists()
    precision = metrics["val_average_precision"]
    values = [v for v in precision["class"].values() if v is not None]
    assert list(precision["class"]) == list(context.dataset.classes)
    assert precision["mean"] == pytest.approx(np.mean(values))
    assert all(0 <= value <= 1 for value in values)


def test_a_finished_training_is_not_repeated(make_context):
    context = make_context("classifier")
    first = classifier.run(context)
    before = read_tensors(context.folder / "weights.safetensors")
    assert classifier.run(context) == first
    after = read_tensors(context.folder / "weights.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def _average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    order = np.argsort(-scores)
    hits = labels[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def test_average_precision_against_its_definition(make_context, monkeypatch):
    context = make_context("classifier")
    ids = context.dataset.ids("val")
    labels = np.stack([context.dataset.labels(image_id) for image_id in ids])
    logits = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    monkeypatch.setattr(classifier, "_logits", lambda *_: torch.from_numpy(logits))
    result = classifier.average_precision(context, torch.nn.Identity())
    for column, value in enumerate(result["class"].values()):
        if labels[:, column].any():
            expected = _average_precision(logits[:, column], labels[:, column])
            assert value == pytest.approx(expected, abs=1e-5)
        else:
            assert value is None


def test_logits_are_those_of_the_images_in_list_order(make_context, write_network):
    context = make_context("classifier")
    net = write_network(context, "classifier")
    ids = context.dataset.ids("val")
    together = classifier._logits(context, net, ids)
    alone = torch.cat([classifier._logits(context, net, [image_id]) for image_id in ids])
    assert together.shape == (len(ids), 8)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.std(0).min() > 0


def test_the_loss_is_binary_cross_entropy(config, write_network, make_context):
    from types import SimpleNamespace

    context = make_context("classifier")
    net = write_network(context, "classifier")
    images, labels = torch.randn(3, 3, 64, 64), torch.randint(0, 2, (3, 8)).float()
    batch = SimpleNamespace(images=images, labels=labels, ids=["a", "b", "c"])
    (loss,) = classifier.ClassifierTask(net, config.classifier).loss(batch, 0.0).values()
    p = net(images).logits.detach().sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(loss.detach(), expected)
