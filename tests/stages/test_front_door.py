"""Stage `front_door`."""

import math

import pytest
import torch

from c2am.methods import build_method
from c2am.models import build_classifier
from c2am.stages import front_door
from c2am.stages.multi_scale import trained_classifier
from c2am.workspace import read_tensors, write_tensors


@pytest.fixture
def context(make_context, write_network):
    """A context of method c2am whose baseline and Global CAM are there."""
    context = make_context("front_door", "c2am")
    write_network(context, "classifier")
    tensors = {"global_cam": torch.rand(8, 12, 12)}
    write_tensors(context.shared("global_cam") / "global_cam.safetensors", tensors)
    return context


def test_it_starts_from_the_baseline_and_changes_it(context):
    metrics = front_door.run(context)
    assert metrics["steps"] == 2
    assert math.isfinite(metrics["loss"])
    tuned = read_tensors(context.folder / "weights.safetensors")
    baseline = read_tensors(context.shared("classifier") / "weights.safetensors")
    head = "head.weight"
    assert not torch.equal(tuned[head], baseline[head])
    # Two steps with a small learning rate stay near to where they began.
    assert (tuned[head] - baseline[head]).abs().max() < 0.1 * baseline[head].abs().max()
    net = trained_classifier(context, context.classifier_weights(), context.method)
    assert torch.equal(net.head.weight, tuned[head])


def test_a_method_gets_what_it_needs_and_no_more(context, make_context):
    found = front_door.artefacts(context, context.method).global_cam
    stored = read_tensors(context.shared("global_cam") / "global_cam.safetensors")["global_cam"]
    assert torch.equal(found, stored)
    other = make_context("front_door", "continued")
    assert front_door.artefacts(other, other.method).global_cam is None


def test_a_method_that_does_not_train_is_refused(make_context):
    with pytest.raises(ValueError, match="front_door/cam: the method trains nothing"):
        front_door.run(make_context("front_door", "cam"))


def test_rounds_prepare_and_train_in_turn(context, monkeypatch):
    prepared = []
    base = type(build_method("continued", context.config.front_door))

    class TwoRounds(base):
        rounds = 2

        def prepare(self, net, artefacts, round):
            prepared.append((round, net.head.weight.detach().clone()))

    method = TwoRounds(context.config.front_door)
    method.name = "c2am"
    context.method = method
    front_door.run(context)
    assert [number for number, _ in prepared] == [0, 1]
    first = read_tensors(context.folder / "round-0" / "weights.safetensors")["head.weight"]
    last = read_tensors(context.folder / "weights.safetensors")["head.weight"]
    assert torch.equal(prepared[1][1], first)
    assert not torch.equal(first, last)


def test_the_methods_statistics_are_logged(context):
    context.events.folder.mkdir(parents=True, exist_ok=True)
    with context.events:
        front_door.run(context)
    lines = (context.events.folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all("positive_logit" in line and "negative_logit" in line for line in lines)


def test_a_method_may_start_from_imagenet(context, monkeypatch):
    monkeypatch.setattr(type(context.method), "starts_from", "imagenet")
    torch.manual_seed(1)
    net = front_door.starting_classifier(context, context.method)
    baseline = read_tensors(context.shared("classifier") / "weights.safetensors")
    assert not torch.equal(net.head.weight, baseline["head.weight"])
    torch.manual_seed(1)
    expected = build_classifier(context.config.classifier, len(context.dataset.classes))
    assert torch.equal(net.head.weight, expected.head.weight)
