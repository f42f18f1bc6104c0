"""Masks of any origin refined by dense CRF: the command `c2am crf`."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from c2am import ops
from c2am.config import CrfConfig
from c2am.data.dataset import DataError
from c2am.data.images import EXTENSIONS, read_image, read_mask
from c2am.evaluation import VOID
from c2am.stages.crf import crf_plan, infer
from c2am.stages.parallel import map_images
from c2am.workspace import write_mask


def refine_labels(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], config: CrfConfig, *, gt_prob: float = 0.7
) -> NDArray[np.uint8]:
    """A mask after mean-field inference of a dense CRF over the classes that are in it.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8; 255 is unsure: any class, and the CRF decides.
        config: parameters of the CRF.
        gt_prob: probability of a pixel's own label in the unaries.

    Returns:
        (H, W) uint8 without 255.

    Raises:
        ValueError: the sizes differ, every pixel is unsure, or `gt_prob` is not in (0, 1).
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"labels: expected shape {image.shape[:2]}, got {labels.shape}")
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob = {gt_prob}: expected a number between 0 and 1")
    values = np.unique(labels[labels != VOID])
    if len(values) == 0:
        raise ValueError("labels: every pixel is unsure (255)")
    if len(values) == 1:  # nothing to decide between
        return np.full_like(labels, values[0])
    unsure = torch.from_numpy(labels == VOID)
    index = np.searchsorted(values, np.where(labels == VOID, values[0], labels))
    unary = ops.unary_from_labels(torch.from_numpy(index), len(values), gt_prob=gt_prob)
    unary[:, unsure] = math.log(len(values))  # the energy of a uniform distribution
    marginals = infer(crf_plan(torch.from_numpy(image.copy()), config), unary, config)
    return values[marginals.argmax(0).numpy()]


def refine_files(
    image: Path, labels: Path, output: Path, config: CrfConfig, *, gt_prob: float = 0.7
) -> int:
    """Refine one mask, or every mask of a folder, in parallel; returns how many.

    Args:
        image: an image, or a folder of images.
        labels: its mask (palette or grey PNG), or a folder of masks `<image name>.png`.
        output: the PNG to write, or the folder to write into.
        config: parameters of the CRF.
        gt_prob: see `refine_labels`.

    Raises:
        DataError: a file is missing or unreadable, or an image and its mask do not fit.
    """
    jobs = {str(target): (photo, mask) for photo, mask, target in _triples(image, labels, output)}

    def refine(target: str) -> None:
        photo, mask = jobs[target]
        try:
            refined = refine_labels(read_image(photo), read_mask(mask), config, gt_prob=gt_prob)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{mask}: {error}") from error
        write_mask(target, refined)

    for _ in map_images(refine, list(jobs), "crf"):
        pass
    return len(jobs)


def _triples(image: Path, labels: Path, output: Path) -> list[tuple[Path, Path, Path]]:
    """Image, mask and result of every job; those of a folder by the masks that are in it."""
    if not labels.is_dir():
        return [(image, labels, output)]
    masks = sorted(labels.glob("*.png"))
    if not masks:
        raise DataError(f"{labels}: no masks (*.png)")
    return [(_image_of(image, mask), mask, output / mask.name) for mask in masks]


def _image_of(folder: Path, mask: Path) -> Path:
    candidates = [folder / f"{mask.stem}{extension}" for extension in EXTENSIONS]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise DataError(f"{mask}: no image {mask.stem} ({' '.join(EXTENSIONS)}) in {folder}")
    return found[0]
