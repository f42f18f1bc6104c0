"""Energies for the dense CRF, from labels and from probabilities."""

import math

import torch
from torch import Tensor

from c2am.ops import checks


def unary_from_labels(
    labels: Tensor, num_classes: int, gt_prob: float, *, ignore: int | None = None
) -> Tensor:
    """Energies of a label map that is right with probability `gt_prob`.

    Args:
        labels: (H, W) integer, 0..C-1 or `ignore`.
        num_classes: C.
        gt_prob: Probability of a pixel's label, in (0, 1); the other classes share the rest.
        ignore: Pixels with this label get the same energy for every class.

    Returns:
        (C, H, W) float32, the values of pydensecrf's function of this name.

    Raises:
        TypeError, ValueError: a wrong argument, by name.
    """
    op = "unary_from_labels"
    checks.tensor(op, "labels", labels, ("H", "W"), checks.INTEGERS)
    if not 0 < gt_prob < 1:
        raise ValueError(f"{op}: gt_prob is {gt_prob}, expected a number between 0 and 1")
    unsure = torch.zeros_like(labels, dtype=torch.bool) if ignore is None else labels == ignore
    index = labels.long().masked_fill(unsure, 0)
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_classes:
        got = f"has values from {int(index.min())} to {int(index.max())}"
        raise ValueError(f"{op}: labels {got}, expected 0 to {num_classes - 1}")
    others = -math.log((1 - gt_prob) / max(num_classes - 1, 1))
    unary = torch.full((num_classes, *labels.shape), others, device=labels.device)
    unary.scatter_(0, index[None], -math.log(gt_prob))
    return unary.masked_fill_(unsure, math.log(num_classes))


def unary_from_softmax(probabilities: Tensor, *, clip: float = 1e-5) -> Tensor:
    """Energies -log p of `probabilities (C, H, W)`, which are raised to `clip` at least.

    Raises:
        TypeError, ValueError: a wrong argument, by name; not in 0..1 (CPU only).
    """
    op = "unary_from_softmax"
    checks.tensor(op, "probabilities", probabilities, ("C", "H", "W"), checks.FEATURES)
    checks.within(op, "probabilities", probabilities, 0, 1 + 1e-3)
    checks.above(op, 0, clip=clip)
    wide = probabilities.to(checks.accumulation_dtype(probabilities.dtype))
    return -wide.clamp(clip, 1).log()
