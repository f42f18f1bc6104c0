"""Stage `cam`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from c2am.evaluate import evaluate_cams
from c2am.stages import cam
from c2am.stages.class_maps import sum_resized
from c2am.stages.loaders import inference_loader
from c2am.stages.multi_scale import both_maps, trained_classifier
from c2am.workspace import read_tensors


@pytest.fixture
def context(make_context, write_network):
    context = make_context("cam", "cam")
    write_network(context, "classifier")
    return context


def test_files_hold_normalised_maps_of_the_labelled_classes(context):
    cam.run(context)
    dataset = context.dataset
    for image_id in dataset.ids("train") + dataset.ids("val"):
        tensors = read_tensors(context.folder / f"{image_id}.safetensors")
        height, width = dataset.size(image_id)
        classes = np.flatnonzero(dataset.labels(image_id))
        assert tensors["classes"].tolist() == classes.tolist()
        assert tensors["classes"].dtype == torch.int64
        assert tensors["high_res"].shape == (len(classes), height, width)
        assert tensors["strided"].shape == (len(classes), -(-height // 4), -(-width // 4))
        for kind in ("high_res", "strided"):
            assert tensors[kind].dtype == torch.float16
            peak = tensors[kind].float().amax((1, 2))
            assert ((peak > 0.99) & (peak <= 1) | (peak == 0)).all()
            assert tensors[kind].min() >= 0


def test_scores_are_those_of_the_files(context):
    metrics = cam.run(context)
    dataset = context.dataset
    truth = dataset.mask_path(dataset.ids("train")[0]).parent
    points = [point for point, _ in metrics["curve"]]
    scores, threshold, curve = evaluate_cams(
        context.folder, truth, dataset.ids("train"), dataset.classes, points
    )
    assert metrics["threshold"] == threshold
    assert metrics["curve"] == curve
    assert metrics["score"] == scores.as_dict()
    val, _, _ = evaluate_cams(
        context.folder, truth, dataset.ids("val"), dataset.classes, [threshold]
    )
    assert metrics["val"] == val.as_dict()
    assert metrics["chosen_on"] == "score"


def test_threshold_chosen_on_val(context):
    context.config.evaluation.choose_on = "val"
    metrics = cam.run(context)
    assert metrics["chosen_on"] == "val"
    assert metrics["val"]["miou"] == max(miou for _, miou in metrics["curve"])


def normalized(maps):
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-5)


def test_high_resolution_maps_are_cropped_from_a_multiple_of_16(context):
    image_id = context.dataset.ids("train")[0]
    net = trained_classifier(context, context.classifier_weights(), context.method)
    loader = inference_loader(
        context, [image_id], net.backbone.normalization, scales=(1.0, 0.5), flip=True
    )
    (batch,) = loader
    height, width = batch.size
    with torch.inference_mode():
        strided, high_res = both_maps(context, context.method, net, batch)
        maps = [
            context.method.class_maps(net, views, batch.present, batch.ids) for views in batch.views
        ]
    rounded = (-(-height // 16) * 16, -(-width // 16) * 16)
    resized = [F.interpolate(m[None], rounded, mode="bilinear")[0] for m in maps]
    torch.testing.assert_close(high_res, normalized(sum(resized)[:, :height, :width]))
    resized = [F.interpolate(m[None], strided.shape[1:], mode="bilinear")[0] for m in maps]
    torch.testing.assert_close(strided, normalized(sum(resized)))
    assert maps[0].shape != maps[1].shape


def test_maps_that_are_there_are_not_made_again(context, monkeypatch):
    first = cam.run(context)
    times = {path: path.stat().st_mtime_ns for path in context.folder.glob("*.safetensors")}
    victim = next(iter(times))
    before = victim.read_bytes()
    victim.unlink()
    assert cam.run(context) == first
    assert victim.read_bytes() == before
    again = {path: path.stat().st_mtime_ns for path in context.folder.glob("*.safetensors")}
    assert {path for path in times if times[path] != again[path]} == {victim}
    monkeypatch.setattr(cam, "trained_classifier", lambda *_: pytest.fail("nothing is to do"))
    assert cam.run(context) == first


def test_an_image_without_labels_has_no_maps(make_context, write_network, pictures):
    image = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    pictures.add("none", image, [])
    pictures.add("two", image, [0, 2])
    context = make_context("cam", "cam", dataset=pictures)
    write_network(context, "classifier")
    assert cam.run(context) == {}
    tensors = read_tensors(context.folder / "none.safetensors")
    assert tensors["classes"].shape == (0,)
    assert tensors["high_res"].shape == (0, 33, 50)
    assert tensors["strided"].shape == (0, 9, 13)
    tensors = read_tensors(context.folder / "two.safetensors")
    assert tensors["classes"].tolist() == [0, 2]


def test_a_threshold_without_masks_to_choose_it_is_an_error(context, monkeypatch):
    mask_path, val = context.dataset.mask_path, context.dataset.ids("val")
    monkeypatch.setattr(context.dataset, "mask_path", lambda i: mask_path(i) if i in val else None)
    with pytest.raises(ValueError, match="no image of the list 'train' has a mask"):
        cam.run(context)
    assert not list(context.folder.glob("*.safetensors"))


def test_sum_over_scales_of_no_maps():
    assert sum_resized([torch.zeros(0, 2, 3), torch.zeros(0, 4, 6)], (8, 9)).shape == (0, 8, 9)


def test_an_image_too_large_for_the_memory_is_refused_by_name(context, monkeypatch):
    name = context.dataset.ids("train")[0]
    sizes = {name: (4000, 5000)}
    original = context.dataset.size
    monkeypatch.setattr(context.dataset, "size", lambda i: sizes.get(i) or original(i))
    context.config.cam.scales = (1.0, 2.0)
    message = rf"{name}.jpg: 5000 x 4000 pixels are more at the scale 2 than cam.max_pixels"
    with pytest.raises(ValueError, match=message):
        cam.check(context.config, context.dataset)
    context.config.cam.scales = (1.0,)
    cam.check(context.config, context.dataset)


def test_a_method_may_differentiate_for_its_maps(context, monkeypatch):
    class Differentiating(type(context.method)):
        needs_gradients = True

        def class_maps(self, net, views, present, ids):
            with torch.enable_grad():
                views = views.clone().requires_grad_()
                maps = super().class_maps(net, views, present, ids)
                (gradient,) = torch.autograd.grad(net(views.flatten(0, 1)).logits.sum(), views)
            return maps + gradient.abs().amax()

    context.method = Differentiating(context.config.front_door)
    context.method.name = "cam"
    cam.run(context)
    assert len(list(context.folder.glob("*.safetensors"))) > 0
