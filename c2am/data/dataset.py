"""What the pipeline asks of a dataset, and the checks that every dataset shares."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

MAX_CLASSES = 254  # a mask holds 0 and 255 besides


class DataError(ValueError):
    """A file of a dataset is missing, unreadable or contradicts another; the message names it."""


Report = Callable[[str], None]
"""What is done about an entry of a list or table that is wrong; if it returns, that is left out."""


def refuse(fault: str) -> None:
    """The `Report` of the pipeline, which does not start with less than it was told."""
    raise DataError(fault)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give a `ValueError` of the block the name of the file at fault: it becomes a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


class Dataset(Protocol):
    """Images, their image-level labels and, for some of them, masks.

    A mask holds class index + 1, 0 for background and 255 for void.
    """

    classes: tuple[str, ...]
    """The Z foreground names."""

    def ids(self, split: str) -> list[str]:
        """Image ids of a list, in its order; raises `DataError` for a missing or bad list."""

    def image_path(self, image_id: str) -> Path:
        """The image file."""

    def labels(self, image_id: str) -> np.ndarray:
        """Which classes are in the image, `(Z,)` bool."""

    def size(self, image_id: str) -> tuple[int, int]:
        """(H, W) in pixels as displayed, EXIF rotation applied."""

    def mask_path(self, image_id: str) -> Path | None:
        """The mask file, None where the dataset has no mask of the image."""


def validate_id(image_id: str, source: Path | str) -> str:
    """Return `image_id` if it is a plain file name.

    Ids become file names of a run: a separator, `..` or a control character could reach outside
    of its folder. `source` is the file that the id stands in; raises `DataError` naming it.
    """
    plain = image_id not in ("", ".", "..") and not set(image_id) & set("/\\:")
    if not plain or not image_id.isprintable() or image_id != image_id.strip():
        raise DataError(f"{source}: {image_id!r} is not an image id (a plain name is expected)")
    return image_id


def validate_ids(ids: Iterable[str], source: Path | str, report: Report = refuse) -> list[str]:
    """The ids that are plain names, each once; `report` is told of all others.

    `source` names their file.
    """
    valid: dict[str, None] = {}
    for image_id in ids:
        try:
            validate_id(image_id, source)
        except DataError as error:
            report(str(error))
            continue
        if image_id in valid:
            report(f"{source}: image id {image_id!r} stands in it more than once")
        valid[image_id] = None
    return list(valid)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; raises `DataError` naming it if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_list(path: Path, report: Report = refuse) -> list[str]:
    """Image ids of a list file, one a line, empty lines skipped."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    ids = validate_ids([line for line in lines if line], path, report)
    if not ids:
        raise DataError(f"{path}: the list is empty")
    return ids


def read_classes(path: Path, report: Report = refuse) -> tuple[str, ...]:
    """Foreground class names of a file, one a line; mask value i + 1 is the i-th line.

    `report` is told of what is wrong; there is then no class, as the others' values are in doubt.
    """
    try:
        names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    except DataError as error:
        report(str(error))
        return ()
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        twice = ", ".join(repr(name) for name in dict.fromkeys(names) if names.count(name) > 1)
        found = f"{twice} more than once" if twice else f"{len(names)}"
        report(f"{path}: expected 1 to {MAX_CLASSES} class names, one a line, each once: {found}")
        return ()
    return names


def label_vector(names: Iterable[str], classes: tuple[str, ...], source: Path | str) -> np.ndarray:
    """Class names as a `(Z,)` bool vector; raises `DataError` for a name that is no class."""
    vector = np.zeros(len(classes), bool)
    for name in names:
        if name not in classes:
            raise DataError(f"{source}: {name!r} is none of the classes: {', '.join(classes)}")
        vector[classes.index(name)] = True
    return vector
