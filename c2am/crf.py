"""Masks of any origin refined by dense CRF: the command `c2am crf`."""

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from c2am import ops
from c2am.config import CrfConfig
from c2am.data.dataset import DataError, naming
from c2am.data.images import EXTENSIONS, read_image, read_mask
from c2am.palette import VOID
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
        sizes = f"expected shape {image.shape[:2]}, got {labels.shape}"
        raise ValueError(f"labels: {sizes}; the image's is as displayed (EXIF)")
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob = {gt_prob}: expected a number between 0 and 1")
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=VOID + 1)[:VOID]).astype(np.uint8)
    if len(values) == 0:
        raise ValueError("labels: every pixel is unsure (255)")
    if len(values) == 1 and values[0] == 0 and (labels == VOID).any():
        warnings.warn(
            "a mask has 0 and 255 only: 255 is unsure, so all becomes 0; foreground is to be 1",
            stacklevel=2,
        )
    if len(values) == 1:  # nothing to decide between
        return np.full_like(labels, values[0])
    unsure = torch.from_numpy(labels == VOID)
    index = np.zeros(VOID + 1, np.uint8)
    index[values] = range(len(values))
    unary = ops.unary_from_labels(torch.from_numpy(index[labels]), len(values), gt_prob=gt_prob)
    unary[:, unsure] = math.log(len(values))  # the energy of a uniform distribution
    best = infer(crf_plan(torch.from_numpy(image.copy()), config), unary, config)
    return values[best.numpy()]


class Job(NamedTuple):
    """An image, its mask, and the file for the refined mask."""

    image: Path
    labels: Path
    output: Path


def refine_files(
    image: Path, labels: Path, output: Path, config: CrfConfig, *, gt_prob: float = 0.7
) -> int:
    """Refine one mask, or every mask of a folder, in parallel; returns how many.

    A single image is refined by all threads of torch, the images of a folder by one thread each.

    Args:
        image: an image, or a folder of images.
        labels: its mask (palette or grey PNG), or a folder of masks `<image name>.png`.
        output: the PNG to write, or the folder to write into, under the masks' names.
        config: parameters of the CRF.
        gt_prob: see `refine_labels`.

    Raises:
        DataError: a file is missing or unreadable, an image and its mask do not fit, or the three
            paths do not.
    """
    jobs = _jobs(image, labels, output)

    def refine(name: str) -> None:
        job = jobs[name]
        with naming(job.labels):
            photo, mask = read_image(job.image), read_mask(job.labels)
            refined = refine_labels(photo, mask, config, gt_prob=gt_prob)
        write_mask(job.output, refined)

    if len(jobs) == 1:
        refine(*jobs)
    else:
        for _ in map_images(refine, list(jobs), "crf"):
            pass
    return len(jobs)


def _jobs(image: Path, labels: Path, output: Path) -> dict[str, Job]:
    """What is to be done, by the names of the masks; that of folders by the masks in them."""
    for path in (image, labels):
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if image.is_dir() != labels.is_dir():
        folder, file = (image, labels) if image.is_dir() else (labels, image)
        raise DataError(f"{folder} is a folder and {file} is a file: expected two of a kind")
    if labels.is_dir():
        return _folder_jobs(image, labels, output)
    if output.is_dir():
        output = output / f"{labels.stem}.png"
    if output.suffix.lower() != ".png":
        raise DataError(f"{output}: expected a name that ends in .png, or a folder")
    return {labels.name: Job(image, labels, output)}


def _folder_jobs(images: Path, labels: Path, output: Path) -> dict[str, Job]:
    masks = sorted(path for path in labels.iterdir() if path.suffix.lower() == ".png")
    if not masks:
        raise DataError(f"{labels}: no masks (*.png)")
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file, expected a folder to write the masks into")
    found = {(path.stem, path.suffix.lower()): path for path in images.iterdir() if path.is_file()}

    def image_of(mask: Path) -> Path:
        for extension in EXTENSIONS:
            if path := found.get((mask.stem, extension)):
                return path
        kinds = " ".join(EXTENSIONS)
        raise DataError(f"{mask}: no image {mask.stem} ({kinds}) in {images}")

    return {mask.name: Job(image_of(mask), mask, output / f"{mask.stem}.png") for mask in masks}
