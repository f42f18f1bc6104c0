"""Stage `pseudo_masks`: CAMs spread by a random walk up to the class boundaries.

The strided CAMs walk on the boundaries of the IRN (image and mirror, scale 1), are resized x4 and
divided by the largest value of the image's classes; a pixel is background where no class is above
the threshold (Ahn et al. 2019, Section 5). Where the threshold is swept or not yet known, the
walked maps are kept, so that the sweep and the masks come from one walk; the other images are
labelled at once.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from c2am import distributed, ops, precision
from c2am.config import PipelineConfig
from c2am.data import Dataset
from c2am.evaluation import mask_at_threshold, sweep_curve
from c2am.models import boundaries, fold_batch_norms
from c2am.stages.class_maps import STRIDE, ClassMaps, read_class_maps, resize
from c2am.stages.context import StageContext
from c2am.stages.irn import trained_irn
from c2am.stages.lists import pending, pending_batches, union, with_mask
from c2am.stages.loaders import inference_batches
from c2am.stages.parallel import Workers, map_images
from c2am.stages.scoring import choose_threshold, score_masks, sweep_list, thresholds
from c2am.workspace import write_mask, write_tensors

_TINY = 1e-5


def run(context: StageContext) -> dict:
    """Write `<id>.png` for the train and score lists, and walked maps of those that are swept."""
    data, dataset = context.config.data, context.dataset
    check(context.config, dataset)
    ids = union(dataset.ids(data.train_list), dataset.ids(data.score_list))
    threshold = context.config.pseudo_masks.threshold
    chosen_on = {"chosen_on": "score"} if threshold == "best" else {}
    swept = ids if threshold == "best" else with_mask(dataset, dataset.ids(data.score_list))
    done = set(swept)
    others = [image_id for image_id in ids if image_id not in done]
    write_walked_maps(context, swept)
    distributed.barrier()
    curve = sweep(context)
    if threshold == "best":
        threshold = choose_threshold(context, curve)
    write_masks(context, swept, threshold)
    write_masks_at_once(context, others, threshold)
    distributed.barrier()
    metrics: dict = {"threshold": threshold} | chosen_on | {"curve": curve}
    score = score_masks(
        context, data.score_list, partial(mask_path, context), f"{context.name}: score"
    )
    return metrics if score is None else {"score": score} | metrics


def check(config: PipelineConfig, dataset: Dataset) -> None:
    """Raise `ValueError` if the threshold is to be found and the score list has no masks."""
    split = config.data.score_list
    best = config.pseudo_masks.threshold == "best"
    if best and not with_mask(dataset, dataset.ids(split)):
        raise ValueError(
            f"pseudo_masks.threshold = 'best', but no image of the list {split!r} has a mask; "
            "give a number"
        )


def write_walked_maps(context: StageContext, ids: list[str]) -> None:
    """Random walk for this rank's images that have no file yet."""
    _each_batch(context, ids, _walked, walk_images)


def write_masks_at_once(context: StageContext, ids: list[str], threshold: float) -> None:
    """Masks of this rank's images that have none yet, without keeping the walked maps."""
    _each_batch(context, ids, mask_path, partial(label_images, threshold=threshold))


@torch.inference_mode()
def _each_batch(
    context: StageContext,
    ids: list[str],
    path: Callable[[StageContext, str], Path],
    work: Callable[[StageContext, Sequence[str], Tensor], None],
) -> None:
    """Call `work(context, ids, edges)`, beside the network, for batches without all their files."""
    config = context.config
    batch_size = config.cam.batch_size
    todo = pending_batches(context, ids, lambda name: path(context, name).exists(), batch_size)
    if not todo:
        return
    net = trained_irn(context)
    fold_batch_norms(net.backbone)
    batches = inference_batches(
        context,
        todo,
        net.backbone.normalization,
        context.name,
        flip=True,
        batch_size=batch_size,
    )
    with Workers() as workers:
        for batch in batches:
            with precision.autocast(context.device, config.irn.precision):
                edges = boundaries(net, batch.views[0])
            workers.submit(work, context, batch.ids, edges)


def label_images(
    context: StageContext, ids: Sequence[str], edges: Tensor, *, threshold: float
) -> None:
    """Write the masks of images from their CAMs and boundaries `edges (B, h, w)`."""
    cams = [read_cams(context, image_id) for image_id in ids]
    masks = ops.random_walk_labels(
        [image.maps.to(context.device, torch.float32) for image in cams],
        list(edges),
        [image.classes for image in cams],
        [context.dataset.size(image_id) for image_id in ids],
        threshold=threshold,
        stride=STRIDE,
        **walk_options(context),
    )
    for image_id, mask in zip(ids, masks, strict=True):
        write_mask(mask_path(context, image_id), mask.cpu().numpy())


def read_cams(context: StageContext, image_id: str) -> ClassMaps:
    """The strided CAMs of an image."""
    return read_class_maps(context.own("cam") / f"{image_id}.safetensors", "strided")


def walk_options(context: StageContext) -> dict[str, Any]:
    """Arguments of the random walk."""
    config = context.config.pseudo_masks
    return {"radius": config.radius, "beta": config.beta, "steps": config.steps}


def walk_images(context: StageContext, ids: Sequence[str], edges: Tensor) -> None:
    """Walk the images' CAMs on their boundaries `edges (B, h, w)`.

    Writes `classes (K,)` and `maps (K, h, w)` float16, divided by their joint maximum.
    """
    cams = [read_cams(context, image_id) for image_id in ids]
    walked = ops.random_walk_batch(
        [image.maps.to(context.device, torch.float32) for image in cams],
        list(edges),
        **walk_options(context),
    )
    for image_id, image, maps in zip(ids, cams, walked, strict=True):
        tensors = {"classes": image.classes, "maps": joint_normalize(maps).half()}
        write_tensors(_walked(context, image_id), tensors)


def _walked(context: StageContext, image_id: str) -> Path:
    return context.folder / f"{image_id}.safetensors"


def joint_normalize(maps: Tensor) -> Tensor:
    """`maps (K, h, w)` divided by the largest value of all of them; all-zero maps stay zero."""
    return maps / maps.amax().clamp_min(_TINY) if maps.numel() else maps


def full_size(walked: ClassMaps, size: tuple[int, int]) -> ClassMaps:
    """Walked maps resized x4, cropped to the image of `size` (H, W), divided by their maximum."""
    height, width = (STRIDE * side for side in walked.maps.shape[1:])
    maps = resize(walked.maps.float(), (height, width))[:, : size[0], : size[1]]
    return ClassMaps(walked.classes, joint_normalize(maps))


def read_full_size(context: StageContext, image_id: str) -> ClassMaps:
    """The walked maps of an image at its full size."""
    walked = read_class_maps(_walked(context, image_id), "maps")
    return full_size(walked, context.dataset.size(image_id))


def sweep(context: StageContext) -> list[list[float]]:
    """`[[threshold, mIoU], ...]` on the score list; empty if it has no masks."""
    split = context.config.data.score_list
    confusions = sweep_list(
        context, split, lambda image_id: read_full_size(context, image_id), f"{context.name}: sweep"
    )
    if confusions is None:
        return []
    return sweep_curve(confusions, thresholds(context), context.dataset.classes)


def write_masks(context: StageContext, ids: list[str], threshold: float) -> None:
    """Masks from the kept maps of this rank's images that have none yet."""

    def write(image_id: str) -> None:
        image = read_full_size(context, image_id)
        mask = mask_at_threshold(image.maps, image.classes, threshold)
        write_mask(mask_path(context, image_id), mask.numpy())

    todo = pending(context, ids, lambda image_id: mask_path(context, image_id).exists())
    for _ in map_images(write, todo, f"{context.name}: masks"):
        pass


def mask_path(context: StageContext, image_id: str) -> Path:
    """Where the mask of an image goes."""
    return context.folder / f"{image_id}.png"
