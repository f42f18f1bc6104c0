"""Scores of segmentation masks: confusion matrices, IoU, and sweeps of the background threshold.

A confusion matrix is `(N, N) int64` with N = Z + 1 classes (0 is background); entry `[t, p]`
counts the pixels of truth t that were predicted as p. Matrices of images, and of ranks, add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from c2am import distributed
from c2am.palette import VOID


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says, as fractions in 0..1.

    With tp, fp and fn of a class, `iou = tp / (tp + fp + fn)`; it is None for a class that occurs
    neither in the truth nor in the prediction. `miou` is the mean over the classes that occur:
    all 21 on the lists of VOC. The rates are those of IRN's evaluation, `fp / (tp + fp + fn)`
    and `fn / (tp + fp + fn)`, averaged over the foreground classes that occur.
    """

    miou: float
    iou: dict[str, float | None]
    false_positive: float
    false_negative: float

    def as_dict(self) -> dict:
        """The scores as JSON values, the form in which manifests hold them."""
        return {
            "miou": self.miou,
            "iou": dict(self.iou),
            "false_positive": self.false_positive,
            "false_negative": self.false_negative,
        }


def confusion_matrix(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Counts of pixels by truth (row) and prediction (column).

    Args:
        prediction: (H, W), any integer type, values below `num_classes`.
        truth: (H, W), the same; pixels of value 255 are left out.
        num_classes: N, background included.

    Returns:
        (N, N) int64.

    Raises:
        ValueError: for masks of different size, or a class that does not exist.
    """
    _check_masks(prediction, truth, num_classes)
    return multiclass_confusion_matrix(
        prediction.long(),
        truth.long(),
        num_classes=num_classes,
        ignore_index=VOID,
        validate_args=False,
    )


def mask_at_threshold(maps: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """The mask of an image's class maps: the arg-max over [threshold, maps].

    A pixel is foreground where its largest map is above the threshold; equality is background.

    Args:
        maps: (K, H, W), any float type.
        classes: (K,) foreground indices 0..Z-1.
        threshold: value of the background.

    Returns:
        (H, W) uint8: 0, or class index + 1.
    """
    best, value = _top_class(maps, classes)
    return torch.where(value > threshold, best, 0).to(torch.uint8)


def threshold_sweep(
    maps: Tensor, classes: Tensor, truth: Tensor, thresholds: Sequence[float], num_classes: int
) -> Tensor:
    """Confusion matrices of `mask_at_threshold` at every threshold, in one pass over the pixels.

    Only the background gains pixels as the threshold rises: a pixel whose largest map is v goes
    from its class to the background at the first threshold t >= v. So one histogram over
    (number of thresholds below v, truth, class) holds all T masks.

    Args:
        maps: (K, H, W), any float type.
        classes: (K,) foreground indices 0..Z-1.
        truth: (H, W) integer, 255 is left out.
        thresholds: T values in ascending order.
        num_classes: N, background included.

    Returns:
        (T, N, N) int64.
    """
    best, value = _top_class(maps, classes)
    _check_masks(best, truth, num_classes)
    valid = truth.to(best.device) != VOID
    best, value, truth = best[valid], value[valid], truth.to(best.device)[valid].long()
    below = torch.bucketize(value, value.new_tensor(list(thresholds)))
    n, bins = num_classes, len(thresholds) + 1
    cell = (below * n + truth) * n + best
    histogram = torch.bincount(cell, minlength=bins * n * n).view(bins, n, n)
    # At threshold i the pixels of bins 0..i are background, those of later bins keep their class.
    fallen = histogram.cumsum(0)[:-1]
    confusion = histogram.sum(0) - fallen
    confusion[:, :, 0] += fallen.sum(2)
    return confusion


def scores(confusion: Tensor, classes: Sequence[str]) -> Scores:
    """Scores of an (N, N) confusion matrix.

    Args:
        confusion: (N, N) counts.
        classes: the N - 1 foreground names.

    Raises:
        ValueError: another number of classes, or no scored pixel at all.
    """
    names = ("background", *classes)
    if confusion.shape != (len(names), len(names)):
        raise ValueError(f"confusion {tuple(confusion.shape)}: expected {len(names)} classes")
    if not confusion.any():
        raise ValueError("confusion is empty: the truth holds no pixel that is not void")
    matrix = confusion.double()
    hits, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    union = truth + predicted - hits
    occurs = union > 0
    iou = hits / union
    foreground = occurs.clone()
    foreground[0] = False
    values = [v if seen else None for v, seen in zip(iou.tolist(), occurs.tolist(), strict=True)]
    return Scores(
        miou=_mean(iou[occurs]),
        iou=dict(zip(names, values, strict=True)),
        false_positive=_mean(((predicted - hits) / union)[foreground]),
        false_negative=_mean(((truth - hits) / union)[foreground]),
    )


def sweep_curve(
    confusions: Tensor, thresholds: Sequence[float], classes: Sequence[str]
) -> list[list[float]]:
    """`[[threshold, mIoU], ...]` of a (T, N, N) sweep."""
    pairs = zip(thresholds, confusions, strict=True)
    return [[threshold, scores(confusion, classes).miou] for threshold, confusion in pairs]


def best_threshold(curve: Sequence[Sequence[float]]) -> float:
    """The threshold of the largest mIoU; the lowest of those that share it."""
    return max(curve, key=lambda point: point[1])[0]


def sweep_thresholds(start: float, stop: float, step: float) -> list[float]:
    """`start, start + step, ..., stop`, both ends included, free of rounding noise."""
    count = int((stop - start) / step + 1e-6) + 1
    return [round(start + i * step, 6) for i in range(count)]


def reduce_confusion(confusion: Tensor) -> Tensor:
    """The sum of a matrix over all ranks, on the CPU."""
    return distributed.sum_on_host(confusion)


def _top_class(maps: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Mask value (H, W) int64 of each pixel's largest map, and that map (H, W) float32."""
    if maps.ndim != 3 or classes.shape != maps.shape[:1]:
        shapes = f"{tuple(maps.shape)} and {tuple(classes.shape)}"
        raise ValueError(f"maps and classes: expected (K, H, W) and (K,), got {shapes}")
    if len(maps) == 0:
        value = torch.full(maps.shape[1:], -torch.inf, device=maps.device)
        return torch.zeros_like(value, dtype=torch.int64), value
    value, index = maps.max(0)
    return classes.to(maps.device, torch.int64)[index] + 1, value.float()


def _check_masks(prediction: Tensor, truth: Tensor, num_classes: int) -> None:
    if prediction.shape != truth.shape:
        sizes = f"{tuple(prediction.shape)}, truth {tuple(truth.shape)}"
        raise ValueError(f"masks differ in size: prediction {sizes}")
    for name, mask in (("prediction", prediction), ("truth", truth)):
        scored = mask[mask != VOID] if name == "truth" else mask
        if scored.numel() and int(scored.max()) >= num_classes:
            found = int(scored.max())
            raise ValueError(f"{name} holds class {found}: expected 0..{num_classes - 1}")


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0
