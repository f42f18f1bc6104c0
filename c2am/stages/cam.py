"""Stage `cam`: a method's multi-scale class maps of every image, and the score of the seeds."""

import torch

from c2am import distributed, ops
from c2am.config import PipelineConfig
from c2am.data import Dataset
from c2am.data.loader import InferenceBatch
from c2am.evaluation import scores, sweep_curve
from c2am.progress import progress
from c2am.stages.class_maps import (
    ClassMaps,
    read_class_maps,
    split_by_image,
)
from c2am.stages.context import StageContext
from c2am.stages.lists import pending_batches, union, with_mask
from c2am.stages.loaders import inference_batches
from c2am.stages.multi_scale import both_maps, trained_classifier
from c2am.stages.parallel import Workers
from c2am.stages.scoring import choose_threshold, sweep_list, thresholds
from c2am.workspace import write_tensors


def run(context: StageContext) -> dict:
    """Write `<id>.safetensors` for the train, score and val lists, and score the seeds."""
    check(context.config, context.dataset)
    data, dataset = context.config.data, context.dataset
    splits = (data.train_list, data.score_list, data.val_list)
    write_class_maps(context, union(*(dataset.ids(split) for split in splits)))
    distributed.barrier()
    return seed_scores(context)


def check(config: PipelineConfig, dataset: Dataset) -> None:
    """Refuse what would fail after hours.

    Raises:
        ValueError: only the list on which the threshold is not chosen has masks, or an image at
            the largest scale has more than `cam.max_pixels`.
    """
    _check_masks(config, dataset)
    _check_sizes(config, dataset)


def _check_sizes(config: PipelineConfig, dataset: Dataset) -> None:
    data, limit = config.data, config.cam.max_pixels
    ids = union(*(dataset.ids(name) for name in (data.train_list, data.score_list, data.val_list)))
    scale = max(config.cam.scales)
    for image_id in progress(ids, "sizes of the images"):
        height, width = dataset.size(image_id)
        if height * width * scale**2 > limit:
            raise ValueError(
                f"{dataset.image_path(image_id)}: {width} x {height} pixels are more at the scale "
                f"{scale:g} than cam.max_pixels = {limit}. Shrink the image, or leave the large "
                "scales out of cam.scales, or raise the limit where there is memory for it"
            )


def _check_masks(config: PipelineConfig, dataset: Dataset) -> None:
    data, choice = config.data, config.evaluation.choose_on
    lists = {"score": data.score_list, "val": data.val_list}
    masks = {name: with_mask(dataset, dataset.ids(lists[name])) for name in lists}
    if any(masks.values()) and not masks[choice]:
        raise ValueError(
            f"evaluation.choose_on = {choice!r}, but no image of the list {lists[choice]!r} has a "
            "mask to choose the threshold with; choose on the other list"
        )


def write_class_maps(context: StageContext, ids: list[str]) -> None:
    """Class maps of this rank's images that have no file yet."""
    config = context.config
    assert context.method is not None
    batch_size = config.cam.batch_size
    todo = pending_batches(context.dataset, ids, context.folder, ".safetensors", batch_size)
    if not todo:
        return
    net = trained_classifier(context, context.classifier_weights(), context.method)
    batches = inference_batches(
        context,
        todo,
        net.backbone.normalization,
        context.name,
        scales=config.cam.scales,
        flip=config.cam.flip,
        batch_size=batch_size,
    )
    # Threads normalise, copy and write, so that the network does not wait for the disk.
    with Workers() as workers, torch.inference_mode(not context.method.needs_gradients):
        for batch in batches:
            maps = both_maps(context, context.method, net, batch)
            workers.submit(save_batch, context, batch, maps)


def save_batch(context: StageContext, batch: InferenceBatch, maps: ops.MultiScaleCam) -> None:
    """One file per image: `classes (K,)` int64, `strided` and `high_res` float16 in 0..1.

    A file that is there from an earlier run is left as it is.
    """
    images = zip(
        batch.ids,
        batch.present,
        *(split_by_image(kind.half().cpu(), batch.present) for kind in maps),
        strict=True,
    )
    for image_id, present, coarse, fine in images:
        tensors = {
            "classes": present.nonzero()[:, 0],
            "strided": coarse,
            "high_res": fine,
        }
        path = context.folder / f"{image_id}.safetensors"
        if not path.exists():
            write_tensors(path, tensors)


def seed_scores(context: StageContext) -> dict:
    """Scores of the high resolution maps on the score and val lists at one threshold.

    The threshold is the best of the sweep on `evaluation.choose_on`. Empty without masks.
    """
    data, choice = context.config.data, context.config.evaluation.choose_on

    def load(image_id: str) -> ClassMaps:
        return read_class_maps(context.folder / f"{image_id}.safetensors", "high_res")

    sweeps = {
        name: sweep_list(context, split, load, f"cam: score {split}")
        for name, split in (("score", data.score_list), ("val", data.val_list))
    }
    chosen = sweeps[choice]
    if chosen is None:
        return {}
    classes, points = context.dataset.classes, thresholds(context)
    curve = sweep_curve(chosen, points, classes)
    threshold = choose_threshold(context, curve)
    at = points.index(threshold)
    metrics: dict = {
        name: scores(sweep[at], classes).as_dict()
        for name, sweep in sweeps.items()
        if sweep is not None
    }
    return metrics | {"threshold": threshold, "chosen_on": choice, "curve": curve}
