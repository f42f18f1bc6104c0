"""CSV tables of image-level labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2am.data.dataset import (
    DataError,
    Report,
    label_vector,
    read_text,
    refuse,
    validate_ids,
)
from c2am.wording import counted


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


def _rows(path: Path, lines: list[list[str]], report: Report) -> list[dict[str, str]]:
    """The rows below the header, by column."""
    columns = [name.strip() for name in lines[0]] if lines else []
    if sorted(columns) not in (["image_id", "labels"], ["image_id", "labels", "split"]):
        found = ",".join(columns) or "none"
        raise DataError(
            f"{path}: columns {found}: expected image_id,labels or image_id,labels,split"
        )
    if len(lines) == 1:
        raise DataError(f"{path}: no rows")
    rows = []
    for line in lines[1:]:
        if len(line) == len(columns):
            rows.append(dict(zip(columns, line, strict=True)))
        else:
            fields = f"{counted(len(line), 'field')}, the header {len(columns)}"
            report(f"{path}: the row {','.join(line)!r} has {fields}")
    return rows


def read_label_table(path: Path, report: Report = refuse) -> LabelTable:
    """Read a label table.

    Labels are separated by `;` if the column has one anywhere, else by spaces; a name may then
    contain spaces. An image without labels is allowed. `report` is told of rows that are wrong.
    Raises `DataError` naming the file and, for wrong columns, those found and those expected.
    """
    try:
        lines = [line for line in csv.reader(read_text(path).splitlines(), strict=True) if line]
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV ({error})") from error
    rows = _rows(path, lines, report)
    ids = [row["image_id"].strip() for row in rows]
    by_id = dict(zip(reversed(ids), reversed(rows), strict=True))  # the first row of an id counts
    kept = {image_id: by_id[image_id] for image_id in validate_ids(ids, path, report)}
    separator = ";" if any(";" in row["labels"] for row in rows) else None
    labels = {
        image_id: tuple(name.strip() for name in row["labels"].split(separator) if name.strip())
        for image_id, row in kept.items()
    }
    splits = {name: row["split"].strip() for name, row in kept.items() if "split" in row}
    return LabelTable(path, labels, splits or None)
