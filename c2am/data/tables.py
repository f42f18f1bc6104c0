"""CSV tables of image-level labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2am.data.dataset import DataError, label_vector, read_text, validate_ids


@dataclass(frozen=True)
class LabelTable:
    """A CSV with the columns `image_id,labels` and, optionally, `split`."""

    path: Path
    labels: dict[str, tuple[str, ...]]
    """Class names of each image, in file order."""
    splits: dict[str, str] | None
    """List of each image, None without the column."""

    def vector(self, image_id: str, classes: tuple[str, ...]) -> np.ndarray:
        """Which of the Z classes are in the image, `(Z,)` bool."""
        if image_id not in self.labels:
            raise DataError(f"{self.path}: no row for the image {image_id!r}")
        return label_vector(self.labels[image_id], classes, self.path)


def _rows(path: Path, lines: list[list[str]]) -> list[dict[str, str]]:
    """The rows below the header, by column."""
    columns = [name.strip() for name in lines[0]] if lines else []
    if sorted(columns) not in (["image_id", "labels"], ["image_id", "labels", "split"]):
        found = ",".join(columns) or "none"
        raise DataError(
            f"{path}: columns {found}: expected image_id,labels or image_id,labels,split"
        )
    if len(lines) == 1:
        raise DataError(f"{path}: no rows")
    for line in lines[1:]:
        if len(line) != len(columns):
            raise DataError(
                f"{path}: the row {','.join(line)!r} has {len(line)} fields, "
                f"the header {len(columns)}"
            )
    return [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def read_label_table(path: Path) -> LabelTable:
    """Read a label table.

    Labels are separated by `;` if the column has one anywhere, else by spaces; a name may then
    contain spaces. An image without labels is allowed. Raises `DataError` naming the file and,
    for wrong columns, those found and those expected.
    """
    try:
        lines = [line for line in csv.reader(read_text(path).splitlines(), strict=True) if line]
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV ({error})") from error
    rows = _rows(path, lines)
    ids = validate_ids([row["image_id"].strip() for row in rows], path)
    separator = ";" if any(";" in row["labels"] for row in rows) else None
    names = [tuple(n.strip() for n in r["labels"].split(separator) if n.strip()) for r in rows]
    labels = dict(zip(ids, names, strict=True))
    if "split" not in rows[0]:
        return LabelTable(path, labels, None)
    return LabelTable(path, labels, dict(zip(ids, (r["split"].strip() for r in rows), strict=True)))
