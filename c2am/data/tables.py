"""CSV tables of image-level labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

from c2am.data.dataset import DataError, read_text, validate_ids


@dataclass(frozen=True)
class LabelTable:
    """A CSV with the columns `image_id,labels` and, optionally, `split`."""

    path: Path
    labels: dict[str, tuple[str, ...]]
    """Class names of each image, in file order."""
    splits: dict[str, str] | None
    """List of each image, None without the column."""


def _rows(path: Path, reader: csv.DictReader) -> list[dict[str, str]]:
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: row {reader.line_num}: {error}") from error
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{path}: row {number} has more or fewer fields than the header")
    return rows


def read_label_table(path: Path) -> LabelTable:
    """Read a label table.

    Labels are separated by `;` if the column has one anywhere, else by spaces; a name may then
    contain spaces. An image without labels is allowed. Raises `DataError` naming the file and,
    for wrong columns, those found and those expected.
    """
    reader = csv.DictReader(read_text(path).splitlines(), strict=True)
    columns = [name.strip() for name in reader.fieldnames or ()]
    if sorted(columns) not in (["image_id", "labels"], ["image_id", "labels", "split"]):
        found = ",".join(columns) or "none"
        raise DataError(
            f"{path}: columns {found}: expected image_id,labels or image_id,labels,split"
        )
    reader.fieldnames = columns
    rows = _rows(path, reader)
    ids = validate_ids([row["image_id"].strip() for row in rows], path)
    separator = ";" if any(";" in row["labels"] for row in rows) else None
    names = [tuple(n.strip() for n in r["labels"].split(separator) if n.strip()) for r in rows]
    labels = dict(zip(ids, names, strict=True))
    if "split" not in columns:
        return LabelTable(path, labels, None)
    return LabelTable(path, labels, dict(zip(ids, (r["split"].strip() for r in rows), strict=True)))
