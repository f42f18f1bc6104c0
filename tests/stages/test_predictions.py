"""Stage `predictions`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from c2am.config import CrfConfig
from c2am.data import read_mask
from c2am.stages import predictions
from c2am.stages.multi_scale import trained_classifier


@pytest.fixture
def context(make_context, write_network, config):
    config.predictions.crf.iterations = 2
    context = make_context("predictions", "cam")
    write_network(context, "segmenter")
    return context


def _masks(folder) -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path) for path in sorted(folder.glob("*.png"))}


def test_masks_and_scores_with_and_without_crf(context):
    metrics = predictions.run(context)
    assert set(metrics) == {"val", "val_given", "val_crf"}
    dataset = context.dataset
    plain, refined = _masks(context.folder / "val"), _masks(context.folder / "val_crf")
    assert sorted(plain) == sorted(refined) == sorted(dataset.ids("val"))
    for image_id, mask in plain.items():
        assert mask.shape == refined[image_id].shape == dataset.size(image_id)
        assert mask.max() <= 8
    hits, union = np.zeros(9), np.zeros(9)
    for image_id, mask in plain.items():
        truth = read_mask(dataset.mask_path(image_id))
        for c in range(9):
            p, t = (mask == c) & (truth != 255), truth == c
            hits[c] += (p & t).sum()
            union[c] += (p | t).sum()
    seen = union > 0
    assert metrics["val"]["miou"] == pytest.approx((hits[seen] / union[seen]).mean())


def test_without_crf_there_is_one_folder(context):
    context.config.predictions.crf = None
    assert set(predictions.run(context)) == {"val", "val_given"}
    assert not (context.folder / "val_crf").exists()


def test_with_labels_given_only_classes_of_the_image_are_predicted(context):
    metrics = predictions.run(context)
    plain, given = _masks(context.folder / "val"), _masks(context.folder / "val_given")
    assert given.keys() == plain.keys()
    others = 0
    for image_id, mask in given.items():
        shown = context.dataset.labels(image_id).nonzero()[0] + 1
        assert np.isin(mask, [0, *shown]).all()
        others += (~np.isin(plain[image_id], [0, *shown])).sum()
    assert others > 0
    assert metrics["val_given"]["miou"] > metrics["val"]["miou"]


def test_labels_given_shares_the_foreground_out():
    # Background, then three classes, in four pixels.
    pixels = torch.tensor(
        [[0.4, 0.5, 0.1, 0.0], [0.5, 0.5, 0.0, 0.0], [0.3, 0.0, 0.4, 0.3], [0.4, 0.4, 0.1, 0.1]]
    )
    probability = pixels.T.reshape(4, 2, 2)
    shown = np.array([False, True, True])
    # 0.6 is shared 0.1 : 0; no class that is shown is left; 0.7 is shared 4 : 3; 0.6 is halved.
    assert predictions.labels_given(probability, shown).flatten().tolist() == [2, 0, 2, 0]
    nothing = np.zeros(3, dtype=bool)
    assert predictions.labels_given(probability, nothing).tolist() == [[0, 0], [0, 0]]


def test_probabilities_are_those_of_the_fused_scales(context):
    context.config.predictions.flip = True
    net = predictions.trained_segmenter(context)
    predictor = predictions.Predictor(context)
    (batch,) = predictor.batches(context.dataset.ids("val")[:1], "val")
    with torch.inference_mode():
        found = predictor.probabilities(batch)
        views = batch.views[0][0]
        logits = [net(views), net(F.interpolate(views, scale_factor=0.5, mode="bilinear"))]
        small = F.interpolate(logits[1], logits[0].shape[-2:], mode="bilinear")
        fused = torch.maximum(logits[0], small)
        each = F.interpolate(fused, batch.size, mode="bilinear").softmax(1)
    expected = (each[0] + each[1].flip(-1)) / 2
    assert found.shape == (1, 9, *batch.size)
    torch.testing.assert_close(found[0], expected)


def test_the_classifier_weighs_the_foreground(context, write_network):
    write_network(context, "classifier")
    ids = context.dataset.ids("val")[:1]
    alone = predictions.Predictor(context)
    (batch,) = alone.batches(ids, "val")
    assert len(batch.views) == 1
    before = alone.probabilities(batch)[0]
    classifier = trained_classifier(context, context.shared("classifier") / "weights.safetensors")
    context.config.predictions.classifier_weight = 1.5
    context.config.cam.scales = (1.0, 0.5)
    predictor = predictions.Predictor(context)
    (batch,) = predictor.batches(ids, "val")
    after = predictor.probabilities(batch)[0]
    logits = torch.stack([classifier(view[0]).logits[0] for view in batch.views[1:]])
    own = before[1:] * logits.sigmoid().mean(0)[:, None, None] ** 1.5
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1:], (1 - before[0]) * own / own.sum(0))
    context.config.predictions.classifier_weight = 100.0  # logarithms: no probability is 0
    assert predictor.probabilities(batch)[0].isfinite().all()


def test_a_killed_run_continues(context, monkeypatch):
    metrics = predictions.run(context)
    plain = _masks(context.folder / "val")
    victim = context.dataset.ids("val")[0]
    (context.folder / "val_crf" / f"{victim}.png").unlink()
    assert predictions.run(context) == metrics
    assert _masks(context.folder / "val_crf").keys() == plain.keys()
    monkeypatch.setattr(predictions, "trained_segmenter", lambda *_: pytest.fail("all is done"))
    assert predictions.run(context) == metrics


def test_a_test_list_that_becomes_the_val_list_gets_what_is_missing(context, monkeypatch):
    context.config.data.test_list = "val"
    context.config.data.val_list = "train"
    predictions.run(context)
    before = _masks(context.folder / "val_crf")
    context.config.data.test_list, context.config.data.val_list = None, "val"
    monkeypatch.setattr(predictions, "refine", lambda *_: pytest.fail("the CRF has run"))
    assert set(predictions.run(context)) == {"val", "val_given", "val_crf"}
    assert _masks(context.folder / "val_given").keys() == before.keys()


def test_lists_whose_masks_would_share_a_folder_are_refused(context):
    config = context.config
    predictions.check(config, context.dataset)
    config.data.test_list = config.data.val_list
    predictions.check(config, context.dataset)
    config.data.test_list = f"{config.data.val_list}_given"
    with pytest.raises(ValueError, match="would go to 'val_given'"):
        predictions.check(config, context.dataset)


def test_the_test_list_goes_to_the_servers_folder(context):
    context.config.data.test_list = "train"
    predictions.run(context)
    server = _masks(context.folder / "results/VOC2012/Segmentation/comp6_test_cls")
    refined = _masks(context.folder / "train_crf")
    assert sorted(server) == sorted(context.dataset.ids("train"))
    for image_id, mask in server.items():
        np.testing.assert_array_equal(mask, refined[image_id])


def test_an_error_in_a_crf_thread_ends_the_stage(context, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory for the lattice")

    monkeypatch.setattr(predictions, "refine", fail)
    with pytest.raises(RuntimeError, match="no memory for the lattice"):
        predictions.run(context)


def test_mean_subtracted_bytes_wrap_around():
    image = torch.tensor([[[100, 116, 104]], [[255, 117, 0]]], dtype=torch.uint8)
    # 100 - 122.675 = -22.675 -> -22 -> 234; 116 - 116.669 -> 0; 0 - 104.008 -> -104 -> 152
    expected = [[[234, 0, 0]], [[132, 0, 152]]]
    assert predictions.mean_subtracted(image).tolist() == expected


def test_the_crf_follows_the_image():
    image = torch.full((40, 40, 3), 30, dtype=torch.uint8)
    image[:, 20:] = 220
    probability = torch.full((2, 40, 40), 0.5)
    probability[0, :, :22], probability[1, :, :22] = 0.8, 0.2
    probability[0, :, 22:], probability[1, :, 22:] = 0.2, 0.8
    assert not probability.argmax(0)[:, 20:22].any()
    refined = predictions.refine(image, probability, CrfConfig())
    assert (refined[:, 20:] == 1).float().mean() > 0.95
    assert (refined[:, :20] == 0).float().mean() > 0.95
