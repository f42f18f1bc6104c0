"""The dataset checker: names every file that is missing, unreadable or contradicts another."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from c2am.config import DataConfig
from c2am.data import open_dataset
from c2am.data.dataset import DataError, Dataset
from c2am.data.folder import FolderDataset
from c2am.data.images import read_image, read_mask
from c2am.data.voc import SBD_URL, TRAIN_AUG_SIZE, VOC_CLASSES, VOC_URL, VocDataset
from c2am.palette import VOID
from c2am.progress import progress_bar
from c2am.wording import counted

SOURCES = f"""\
Where the parts of PASCAL VOC 2012 come from:
  JPEGImages, Annotations, SegmentationClass, ImageSets
      {VOC_URL}
  the list train_aug: derived from train.txt and val.txt of SBD (--sbd benchmark_RELEASE/dataset)
      {SBD_URL}
  images of the list test: the evaluation server, after registration
      http://host.robots.ox.ac.uk:8080
"""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a dataset."""

    severity: Literal["error", "warning"]
    """error: the pipeline would stop there; warning: it works, but it may not be meant so."""
    message: str
    """Names the file or the list."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


def check_dataset(config: DataConfig) -> list[Problem]:
    """Read every image, label and mask of the lists of `config`; returns what is wrong with them.

    An empty result means that the pipeline can read everything. Works in `config.threads` threads
    and shows a progress bar.
    """
    problems: list[Problem] = []

    def report(fault: str) -> None:
        problems.append(Problem("error", fault))

    dataset = _attempt(problems, open_dataset, config, Path(config.root), report)
    if dataset is None:
        return problems
    lists = _read_lists(config, dataset, problems)
    problems += _check_lists(config, dataset, lists)
    problems += _check_folders(config, dataset)
    ids = list(dict.fromkeys(image_id for each in lists.values() for image_id in each))
    labelled = {image_id for name in lists if name != config.test_list for image_id in lists[name]}
    if not _has_labels(config, dataset):
        labelled = set()  # said once, by _check_folders
    if isinstance(dataset, VocDataset):
        labelled -= dataset.refused  # said of their rows
    check = partial(_check_image, dataset, labelled=labelled)
    problems += _in_threads(check, ids, config.threads)
    return list(dict.fromkeys(problems))  # a list may be read for the sake of another


def _has_labels(config: DataConfig, dataset: Dataset) -> bool:
    """False for a VOCdevkit without CSV and XML."""
    if config.labels is not None or not isinstance(dataset, VocDataset):
        return True
    return (dataset.root / "Annotations").is_dir()


def _check_folders(config: DataConfig, dataset: Dataset) -> Iterator[Problem]:
    """A folder of VOC that is missing as a whole; images of a folder that no row names."""
    if isinstance(dataset, VocDataset) and not _has_labels(config, dataset):
        text = f"no such folder; it is part of {VOC_URL}"
        yield Problem("error", f"{dataset.root / 'Annotations'}: {text}")
    if isinstance(dataset, FolderDataset):
        for path in dataset.unlisted:
            text = "stands in no row of the labels and is not used"
            yield Problem("warning", f"{path}: {text}")


def _attempt(problems: list[Problem], function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the function, or None and a problem."""
    try:
        return function(*arguments)
    except DataError as error:
        problems.append(Problem("error", str(error)))
        return None


def _in_threads(
    check: Callable[[str], list[Problem]], ids: list[str], threads: int
) -> list[Problem]:
    found: list[Problem] = []
    pool = ThreadPoolExecutor(threads)
    try:
        with progress_bar("data check", total=len(ids)) as bar:
            for problems in pool.map(check, ids):
                found += problems
                bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for all images
    return found


def _read_lists(
    config: DataConfig, dataset: Dataset, problems: list[Problem]
) -> dict[str, list[str]]:
    """Ids of every list that can be read."""
    names = (config.train_list, config.score_list, config.val_list, config.test_list)
    lists = {name: _attempt(problems, dataset.ids, name) for name in dict.fromkeys(names) if name}
    return {name: ids for name, ids in lists.items() if ids is not None}


def _check_lists(
    config: DataConfig, dataset: Dataset, lists: dict[str, list[str]]
) -> Iterator[Problem]:
    """Lists against each other, against VOC, and against the masks that scores need."""
    train, val = lists.get(config.train_list, []), lists.get(config.val_list, [])
    both = set(train) & set(val)
    if both and set(train) != set(val):
        images = counted(len(both), "image")
        text = f"has {images} of the list {config.val_list!r}, such as {min(both)}"
        yield Problem("warning", f"list {config.train_list!r}: {text}")
    size = len(lists.get("train_aug", ()))
    if size not in (0, TRAIN_AUG_SIZE) and dataset.classes == VOC_CLASSES:
        expected = f"VOC train + SBD train + SBD val - VOC val are {TRAIN_AUG_SIZE:,}"
        text = f"{counted(size, 'image')}: {expected}"
        yield Problem("error", f"list 'train_aug': {text}")
    unscored: dict[str, list[str]] = {}  # image without mask -> lists
    for name in dict.fromkeys((config.score_list, config.val_list)):
        ids = lists.get(name, [])
        missing = [image_id for image_id in ids if dataset.mask_path(image_id) is None]
        if ids and len(missing) == len(ids):
            text = "no image has a mask, so nothing is scored on it"
            yield Problem("warning", f"list {name!r}: {text}")
            continue
        for image_id in missing:
            unscored.setdefault(image_id, []).append(repr(name))
    for image_id, names in unscored.items():
        where = "list " if len(names) == 1 else "lists "
        text = f"no mask of the image {image_id!r}"
        yield Problem("warning", f"{where}{' and '.join(names)}: {text}")


def _check_image(dataset: Dataset, image_id: str, *, labelled: set[str]) -> list[Problem]:
    """An image, its labels if it is in `labelled`, and its mask if there is one."""
    found: list[Problem] = []
    size = _attempt(found, lambda: read_image(dataset.image_path(image_id)).shape[:2])
    present = None
    if image_id in labelled:
        present = _attempt(found, _read_labels, dataset, image_id)
    if present is not None and not present.any():
        found.append(Problem("warning", f"image {image_id!r}: no class, so it gets no class map"))
    path = dataset.mask_path(image_id)
    mask = _attempt(found, read_mask, path) if path is not None else None
    if mask is not None:
        found += _check_mask(mask, f"{path}", size)
        if _knows_classes(dataset):
            found += _check_values(mask, f"{path}", present, dataset.classes)
    return found


def _knows_classes(dataset: Dataset) -> bool:
    """False where a fault that has been reported leaves it open what the values of masks mean."""
    incomplete = isinstance(dataset, FolderDataset) and dataset.incomplete
    return bool(dataset.classes) and not incomplete


def _read_labels(dataset: Dataset, image_id: str) -> np.ndarray | None:
    """The labels as `(Z,)` bool; None, though read, where `classes.txt` is wrong."""
    if isinstance(dataset, VocDataset) and not dataset.classes:
        dataset.label_names(image_id)
        return None
    return dataset.labels(image_id)


def _check_mask(mask: np.ndarray, path: str, size: tuple[int, int] | None) -> Iterator[Problem]:
    """A mask `(H, W)` against the size of its image, where that is known."""
    if size is not None and mask.shape != size:
        text = "the mask is {} x {} pixels (H x W), its image {} x {}".format(*mask.shape, *size)
        yield Problem("error", f"{path}: {text}")


def _check_values(
    mask: np.ndarray, path: str, present: np.ndarray | None, classes: tuple[str, ...]
) -> Iterator[Problem]:
    """The values of a mask against the classes, and the image's labels where these are known."""
    values = [int(value) for value in np.unique(mask) if value not in (0, VOID)]
    beyond = [value for value in values if value > len(classes)]
    if beyond:
        listed = ", ".join(map(str, beyond))
        text = f"values {listed}: expected 0 to {len(classes)} (the classes) or {VOID} (void)"
        yield Problem("error", f"{path}: {text}")
    if present is None:
        return
    for value in values:
        if value <= len(classes) and not present[value - 1]:
            text = f"shows {classes[value - 1]!r}, which the image's labels lack"
            yield Problem("warning", f"{path}: {text}")
