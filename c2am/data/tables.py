"""CSV tables of image-level labels."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PureWindowsPath

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
    refused: frozenset[str] = frozenset()
    """Words of rows that were left out as wrong: they may be names of images and of lists."""

    def names(self, image_id: str) -> tuple[str, ...]:
        """Class names of an image; raises `DataError` if it has no row."""
        if image_id not in self.labels:
            raise DataError(f"{self.path}: no row for the image {image_id!r}")
        return self.labels[image_id]

    def vector(self, image_id: str, classes: tuple[str, ...]) -> np.ndarray:
        """Which of the Z classes are in the image, `(Z,)` bool."""
        return label_vector(self.names(image_id), classes, self.path)


def _rows(
    path: Path, lines: list[list[str]], report: Report
) -> tuple[list[dict[str, str]], list[list[str]]]:
    """The rows below the header by column, and those with another number of fields."""
    columns = [name.strip() for name in lines[0]] if lines else []
    if sorted(columns) not in (["image_id", "labels"], ["image_id", "labels", "split"]):
        found = ",".join(columns) or "none"
        raise DataError(
            f"{path}: columns {found}: expected image_id,labels or image_id,labels,split"
        )
    if len(lines) == 1:
        raise DataError(f"{path}: no rows")
    rows, refused = [], []
    for line in lines[1:]:
        if len(line) == len(columns):
            rows.append(dict(zip(columns, line, strict=True)))
        else:
            fields = f"{counted(len(line), 'field')}, the header {len(columns)}"
            report(f"{path}: the row {','.join(line)!r} has {fields}")
            refused.append(line)
    return rows, refused


def _words(rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The fields of rows, and for paths among them the names of the files."""
    for field in chain.from_iterable(rows):
        path = PureWindowsPath(field.strip())  # its parts end at / as well
        yield from (field.strip(), path.name, path.stem)


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
    rows, refused = _rows(path, lines, report)
    ids = [row["image_id"].strip() for row in rows]
    by_id = dict(zip(reversed(ids), reversed(rows), strict=True))  # the first row of an id counts
    kept = {image_id: by_id[image_id] for image_id in validate_ids(ids, path, report)}
    refused += [list(row.values()) for row in rows if row["image_id"].strip() not in kept]
    separator = ";" if any(";" in row["labels"] for row in rows) else None
    labels = {
        image_id: tuple(name.strip() for name in row["labels"].split(separator) if name.strip())
        for image_id, row in kept.items()
    }
    splits = {name: row["split"].strip() for name, row in kept.items() if "split" in row}
    return LabelTable(path, labels, splits or None, frozenset(_words(refused)))
