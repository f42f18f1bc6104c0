"""Stage `segmenter`: its loss, and a training of two steps."""

import numpy as np
import pytest
import torch

from c2am.data import read_image
from c2am.models import WeightsError
from c2am.stages import irn, segmenter
from c2am.stages.labels import resize_labels
from c2am.stages.segmenter import segmentation_loss
from c2am.workspace import read_tensors, write_mask


def _naive(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Cross-entropy of every pixel, (B, H, W)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    safe = np.where(label == 255, 0, label).astype(int)
    return -np.take_along_axis(log_softmax, safe[:, None], 1)[:, 0]


def _example() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5, 6))
    return logits, rng.choice(np.array([0, 0, 1, 3, 255], np.uint8), (2, 5, 6))


def test_cross_entropy_is_the_mean_over_pixels_that_are_not_void():
    logits, label = _example()
    loss = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(label), "cross_entropy")
    assert loss.item() == pytest.approx(_naive(logits, label)[label != 255].mean())


def test_balanced_is_half_of_the_background_and_foreground_means():
    logits, label = _example()
    loss = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(label), "balanced")
    every = _naive(logits, label)
    foreground = every[(label != 0) & (label != 255)].mean()
    assert loss.item() == pytest.approx((every[label == 0].mean() + foreground) / 2)


@pytest.mark.parametrize("value", [0, 2])
def test_balanced_without_foreground_or_without_background(value):
    logits, label = _example()
    label[:] = value
    loss = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(label), "balanced")
    assert loss.item() == pytest.approx(_naive(logits, label).mean() / 2)


@pytest.mark.parametrize("kind", ["balanced", "cross_entropy"])
def test_void_alone_costs_nothing_and_has_no_gradient(kind):
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 12, 12), 255, dtype=torch.uint8), kind)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_labels_are_those_of_the_cells_centres():
    masks = torch.arange(24 * 16, dtype=torch.int64).view(1, 24, 16).remainder(251).to(torch.uint8)
    resized = resize_labels(masks, (6, 4))
    assert torch.equal(resized, masks[:, 2::4, 2::4].long())


def test_training_on_pseudo_masks(make_context):
    context = make_context("segmenter", "cam")
    for image_id in context.dataset.ids("train"):
        image = read_image(context.dataset.image_path(image_id))
        write_mask(
            context.own("pseudo_masks") / f"{image_id}.png",
            (image[..., 0] > 128).astype(np.uint8),
        )
    metrics = segmenter.run(context)
    assert metrics["steps"] == 2
    assert np.isfinite(metrics["loss"])
    weights = read_tensors(context.folder / "weights.safetensors")
    trained = segmenter.trained_segmenter(context)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_every_scale_and_the_fusion_have_a_term(config):
    from types import SimpleNamespace

    from c2am.models import build_segmenter

    net = build_segmenter(config.segmenter, 3)
    task = segmenter.SegmenterTask(net, config.segmenter)
    masks = torch.randint(0, 4, (2, 64, 64), dtype=torch.uint8)
    terms = task.loss(SimpleNamespace(images=torch.randn(2, 3, 64, 64), masks=masks), 0.0)
    assert list(terms) == ["scale_1", "scale_0.5", "fused"]
    logits, fused = net.multi_scale(torch.zeros(1, 3, 64, 64), (1.0, 0.5))
    assert fused.shape == logits[0].shape


def test_it_can_start_from_the_backbone_of_the_classifier(make_context, write_network):
    context = make_context("segmenter", "cam")
    write_network(context, "classifier")
    context.config.segmenter.weights = "classifier"
    context.config.segmenter.backbone = context.config.classifier.backbone
    segmenter.check(context.config, context.dataset)
    net = segmenter.starting_segmenter(context)
    classifier = read_tensors(context.shared("classifier") / "weights.safetensors")
    own = net.backbone.state_dict()
    assert own.keys() == {name[9:] for name in classifier if name.startswith("backbone.")}
    assert all(torch.equal(tensor, classifier[f"backbone.{n}"]) for n, tensor in own.items())


def test_starting_from_a_classifier_of_another_kind_is_refused(make_context):
    context = make_context("segmenter", "cam")
    context.config.segmenter.weights = "classifier"
    context.config.segmenter.backbone = "resnet101"
    with pytest.raises(ValueError, match=r"segmenter\.backbone = 'resnet101' and classifier"):
        segmenter.check(context.config, context.dataset)


def test_a_missing_file_of_weights_is_found_before_the_first_stage(make_context):
    context = make_context("segmenter", "cam")
    segmenter.check(context.config, context.dataset)
    context.config.segmenter.weights = context.config.irn.weights = "nowhere.pth"
    for stage in (irn, segmenter):
        with pytest.raises(WeightsError, match=r"nowhere\.pth: no such file"):
            stage.check(context.config, context.dataset)
