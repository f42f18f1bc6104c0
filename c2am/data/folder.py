"""A folder of images and a CSV of image-level labels."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from c2am.data.dataset import MAX_CLASSES, DataError, Report, refuse
from c2am.data.images import EXTENSIONS, image_size
from c2am.data.tables import read_label_table
from c2am.workspace import is_run


class FolderDataset:
    """Own data: images anywhere below `root`, `labels.csv`, and masks in `masks/` if there are any.

    The folders of runs that lie below the root are left out.

    The CSV has the columns `image_id,labels` (file name without extension; class names) and
    optionally `split`. Without that column every list holds all images. Classes are the names
    found, sorted; a mask `masks/<image_id>.png` holds their index + 1. `report` is told of rows
    of the CSV that are wrong, and of two images of one id.
    """

    def __init__(self, root: Path, *, labels: Path | None = None, report: Report = refuse) -> None:
        self.root = Path(root)
        self._table = read_label_table(labels or self.root / "labels.csv", report)
        self.classes = tuple(
            sorted({name for names in self._table.labels.values() for name in names})
        )
        self.incomplete = bool(self._table.refused)
        """Whether rows were left out, so that classes may be missing."""
        least = 0 if self.incomplete else 1
        if not least <= len(self.classes) <= MAX_CLASSES:
            found = f"{len(self.classes)} classes: expected 1 to {MAX_CLASSES}"
            raise DataError(f"{self._table.path}: {found}")
        self.unlisted: list[Path] = []
        """Images below the root that stand in no row of the CSV, not in a wrong one either."""
        self._images = self._find_images(report)
        self._sizes: dict[str, tuple[int, int]] = {}

    def _find_images(self, report: Report) -> dict[str, Path]:
        found: dict[str, Path] = {}
        listed = self._table.refused | self._table.labels.keys()
        for path in sorted(_files_below(self.root)):
            image_id = path.stem
            if path.suffix.lower() not in EXTENSIONS:
                continue
            if image_id not in self._table.labels:
                if not {image_id, path.name} & listed:
                    self.unlisted.append(path)
                continue
            if image_id in found:
                report(f"{path}: the image id {image_id!r} belongs to {found[image_id]} too")
                continue
            found[image_id] = path
        return found

    def ids(self, split: str) -> list[str]:
        """Image ids whose column `split` says so, in file order; all without that column."""
        splits = self._table.splits
        if splits is None:
            return list(self._table.labels)
        ids = [image_id for image_id, name in splits.items() if name == split]
        if not ids and split not in self._table.refused:
            names = ", ".join(sorted(set(splits.values())))
            raise DataError(
                f"{self._table.path}: no image of the list {split!r}; lists found: {names} "
                "(chosen with --data.train_list, --data.score_list and --data.val_list)"
            )
        return ids

    def image_path(self, image_id: str) -> Path:
        """The image file; raises `DataError` if there is none."""
        if image_id not in self._images:
            raise DataError(
                f"{self.root}: no image of id {image_id!r} (the file name without its extension, "
                f"which is one of {' '.join(EXTENSIONS)})"
            )
        return self._images[image_id]

    def labels(self, image_id: str) -> np.ndarray:
        """Which classes are in the image, `(Z,)` bool."""
        return self._table.vector(image_id, self.classes)

    def size(self, image_id: str) -> tuple[int, int]:
        """(H, W) in pixels as displayed, from the image's header."""
        if image_id not in self._sizes:
            self._sizes[image_id] = image_size(self.image_path(image_id))
        return self._sizes[image_id]

    def mask_path(self, image_id: str) -> Path | None:
        """`masks/<id>.png` if it exists."""
        path = self.root / "masks" / f"{image_id}.png"
        return path if path.is_file() else None


def _files_below(root: Path) -> Iterator[Path]:
    """All files of the folder, but for masks and the folders of runs; links are followed."""
    seen: set[Path] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if here / name != root / "masks")
        if is_run(here) or here.resolve() in seen:  # a link may lead back
            folders.clear()
            continue
        seen.add(here.resolve())
        yield from (here / name for name in names)
