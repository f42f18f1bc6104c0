"""Scores of a stage's maps or masks over a list of images, summed over the ranks."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from c2am.data import DataError, naming, read_mask
from c2am.evaluation import (
    best_threshold,
    confusion_matrix,
    reduce_confusion,
    scores,
    sweep_thresholds,
    threshold_sweep,
)
from c2am.stages.class_maps import ClassMaps
from c2am.stages.context import StageContext
from c2am.stages.lists import own, with_mask
from c2am.stages.parallel import map_images


def thresholds(context: StageContext) -> list[float]:
    """The background thresholds of `config.evaluation`."""
    return sweep_thresholds(*context.config.evaluation.thresholds)


def choose_threshold(context: StageContext, curve: Sequence[Sequence[float]]) -> float:
    """The best threshold of a curve; warns where a wider sweep might find a better one."""
    best = best_threshold(curve)
    first, last = curve[0][0], curve[-1][0]
    if len(curve) > 1 and best in (first, last):
        warnings.warn(
            f"{context.name}: the best threshold, {best:g}, is at an end of the sweep; "
            f"widen evaluation.thresholds, now {first:g} to {last:g}",
            stacklevel=2,
        )
    return best


def sweep_list(
    context: StageContext, split: str, load: Callable[[str], ClassMaps], description: str
) -> Tensor | None:
    """Confusion matrices (T, N, N) of a list at every threshold; None if no image has a mask.

    `load` gives an image's class maps at its full size.
    """
    points = thresholds(context)

    def confusion(image_id: str) -> Tensor:
        image, num_classes = load(image_id), len(context.dataset.classes) + 1
        with _truth(context, image_id) as truth:
            return threshold_sweep(image.maps, image.classes, truth, points, num_classes)

    return _total(context, split, confusion, len(points), description)


def score_masks(
    context: StageContext, split: str, path: Callable[[str], Path], description: str
) -> dict | None:
    """Scores of the masks of a list, read back from their files; None if it has no truth."""

    def confusion(image_id: str) -> Tensor:
        prediction = torch.from_numpy(read_mask(path(image_id)))
        with _truth(context, image_id) as truth:
            return confusion_matrix(prediction, truth, len(context.dataset.classes) + 1)[None]

    total = _total(context, split, confusion, 1, description)
    return None if total is None else scores(total[0], context.dataset.classes).as_dict()


@contextmanager
def _truth(context: StageContext, image_id: str) -> Iterator[Tensor]:
    """The truth of an image; a `ValueError` of the block gets its file's name."""
    path = context.dataset.mask_path(image_id)
    assert path is not None, image_id
    with naming(path):
        yield torch.from_numpy(read_mask(path))


def _total(
    context: StageContext,
    split: str,
    confusion: Callable[[str], Tensor],
    depth: int,
    description: str,
) -> Tensor | None:
    ids = with_mask(context.dataset, context.dataset.ids(split))
    if not ids:
        return None
    num_classes = len(context.dataset.classes) + 1
    total = torch.zeros(depth, num_classes, num_classes, dtype=torch.int64)
    for part in map_images(confusion, own(context.dataset, ids), description):
        total += part
    total = reduce_confusion(total.to(context.device))
    if not total.any():
        raise DataError(f"list {split!r}: every pixel of its masks is void (255)")
    return total
