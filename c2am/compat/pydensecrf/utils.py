"""The helpers of `pydensecrf.utils`: unary energies, and features of pairwise kernels."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from c2am import ops
from c2am.compat.pydensecrf import arguments


def unary_from_labels(
    labels: np.ndarray, n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> np.ndarray:
    """Energies (n_labels, N) float32 of a label map that is right with probability `gt_prob`.

    Args:
        labels: integers, N in any shape.
        n_labels: without 0, if 0 is unsure.
        gt_prob: probability of a pixel's label, in (0, 1); the other labels share the rest.
        zero_unsure: whether 0 means any label; labels then count from 1.

    Raises:
        TypeError, ValueError: a wrong argument, by name.
    """
    flat = np.asarray(labels).reshape(1, -1)
    if flat.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integers, got {flat.dtype}")
    index = torch.from_numpy(flat.astype(np.int64) - bool(zero_unsure))
    unsure = -1 if zero_unsure else None
    return ops.unary_from_labels(index, n_labels, gt_prob, ignore=unsure).flatten(1).numpy()


def unary_from_softmax(
    sm: np.ndarray, scale: float | None = None, clip: float | None = 1e-5
) -> np.ndarray:
    """Energies -log p (C, N) float32 of the probabilities `sm (C, ...)`.

    Args:
        sm: probabilities of the labels.
        scale: how far they are trusted, in (0, 1]: they become scale p + (1 - scale) / C.
        clip: the least probability; None leaves 0, whose energy is infinite, as it is.

    Raises:
        ValueError: `scale` is not in (0, 1].
    """
    classes = len(sm)
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale = {scale}: expected a number in (0, 1]")
        sm = scale * sm + (1 - scale) / classes
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    with np.errstate(divide="ignore"):
        return -np.log(sm).reshape(classes, -1).astype(np.float32)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Features (d, N) float32 for `addPairwiseEnergy`: positions in an array of d dimensions.

    Args:
        sdims: d standard deviations, in the order of the dimensions: (y, x) for an image.
        shape: d sizes.

    Raises:
        ValueError: they are not equally many.
    """
    sigmas = np.array(arguments.deviations("sdims", sdims, len(shape)), np.float32)
    return np.indices(shape, np.float32).reshape(len(shape), -1) / sigmas[:, None]


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: np.ndarray, chdim: int = -1
) -> np.ndarray:
    """Features (d + channels, N) float32 for `addPairwiseEnergy`: positions, then channels.

    Args:
        sdims: d standard deviations of the position, in the order of the dimensions of `img`.
        schan: those of the channels, or one for all.
        img: an image, volume, ... of any dtype.
        chdim: which dimension of `img` holds the channels; -1 says that there is one channel,
            without a dimension.

    Raises:
        ValueError: too many or too few standard deviations.
    """
    channels = img[None] if chdim == -1 else np.moveaxis(img, chdim, 0)
    sigmas = np.array(arguments.deviations("schan", schan, len(channels)), np.float32)
    places = create_pairwise_gaussian(sdims, channels.shape[1:])
    values = channels.astype(np.float32).reshape(len(channels), -1)
    return np.concatenate([places, values / sigmas[:, None]])


def compute_unary(labels: np.ndarray, M: int, GT_PROB: float = 0.5) -> np.ndarray:
    """The former name of `unary_from_labels`."""
    _warn("compute_unary", "unary_from_labels")
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: np.ndarray, GT_PROB: float = 1) -> np.ndarray:
    """The former name of `unary_from_softmax`; it does not clip."""
    _warn("softmax_to_unary", "unary_from_softmax")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated, use {new} instead", DeprecationWarning, stacklevel=3)
