"""PASCAL VOC 2012, and other data in its format."""

import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from c2am.data.dataset import (
    DataError,
    Report,
    label_vector,
    read_classes,
    read_list,
    read_text,
    refuse,
    validate_id,
)
from c2am.data.images import image_size
from c2am.data.tables import read_label_table
from c2am.wording import counted

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
TRAIN_AUG_SIZE = 10582
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
SBD_URL = "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"


class _Builder(ET.TreeBuilder):
    """Refuses document types, and with them entities, before any is declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError("document types are not allowed")


def read_annotation(path: Path) -> list[str]:
    """Names of the objects of a VOC annotation (difficult ones included, parts not), sorted."""
    text = read_text(path)
    try:
        root = ET.fromstring(text, ET.XMLParser(target=_Builder()))
    except (ET.ParseError, DataError) as error:
        raise DataError(f"{path}: not a VOC annotation ({error})") from error
    return sorted({(item.findtext("name") or "").strip() for item in root.findall("object")})


class VocDataset:
    """A VOCdevkit: `JPEGImages`, `Annotations`, `SegmentationClass[Aug]`, `ImageSets`.

    Image labels come from the XML annotations, or from the CSV `labels`; never from masks. The
    classes are VOC's 20, or the lines of `<root>/classes.txt`. `sbd` is SBD's
    `benchmark_RELEASE/dataset`, from which `train_aug` is derived where there is no list of it;
    its images and annotations are all in VOC 2012's folders. `report` is told of entries of the
    lists and of rows of the CSV that are wrong, and of a wrong `classes.txt`.
    """

    def __init__(
        self,
        root: Path,
        *,
        labels: Path | None = None,
        sbd: Path | None = None,
        report: Report = refuse,
    ) -> None:
        self.root, self.sbd, self._report = Path(root), sbd, report
        if not (self.root / "JPEGImages").is_dir():
            raise DataError(
                f"{self.root / 'JPEGImages'}: no such folder. The root is the VOC2012 of a "
                f"VOCdevkit: {VOC_URL}; a folder of other images is of the kind 'folder'"
            )
        names = self.root / "classes.txt"
        self.classes = read_classes(names, report) if names.is_file() else VOC_CLASSES
        self._table = read_label_table(labels, report) if labels else None
        self.refused: frozenset[str] = self._table.refused if self._table else frozenset()
        """Words of rows of the CSV that were left out; they may be names of images."""
        self._sizes: dict[str, tuple[int, int]] = {}

    def list_path(self, split: str) -> Path:
        """The list file of a split, whether it exists or not."""
        name = validate_id(split, "name of a list")
        return self.root / "ImageSets" / "Segmentation" / f"{name}.txt"

    def ids(self, split: str) -> list[str]:
        """Image ids of `ImageSets/Segmentation/<split>.txt`, or the derived `train_aug`."""
        path = self.list_path(split)
        if split == "train_aug" and not path.is_file():
            return self._derive_train_aug(path)
        if not path.is_file():
            lists = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
            raise DataError(
                f"{path}: no such list; lists found: {lists}. VOC's are part of {VOC_URL}"
            )
        return read_list(path, self._report)

    def _derive_train_aug(self, path: Path) -> list[str]:
        """VOC train + SBD train + SBD val - VOC val, sorted; warns if they are not 10,582."""
        if self.sbd is None or not (self.sbd / "train.txt").is_file():
            missing = path if self.sbd is None else self.sbd / "train.txt"
            raise DataError(
                f"{missing}: no such file. The list train_aug is derived from SBD: unpack "
                f"{SBD_URL} and pass --data.sbd .../benchmark_RELEASE/dataset. "
                "To train without SBD, pass --data.train_list train"
            )
        ids = set(self.ids("train"))
        for name in ("train", "val"):
            ids.update(read_list(self.sbd / f"{name}.txt", self._report))
        ids -= set(self.ids("val"))
        if self.classes == VOC_CLASSES and len(ids) != TRAIN_AUG_SIZE:
            warnings.warn(
                f"{self.sbd}: train_aug has {counted(len(ids), 'image')}, "
                f"{TRAIN_AUG_SIZE:,} were expected",
                stacklevel=3,
            )
        return sorted(ids)

    def image_path(self, image_id: str) -> Path:
        """`JPEGImages/<id>.jpg`."""
        return self.root / "JPEGImages" / f"{image_id}.jpg"

    def annotation_path(self, image_id: str) -> Path:
        """`Annotations/<id>.xml`."""
        return self.root / "Annotations" / f"{image_id}.xml"

    def labels(self, image_id: str) -> np.ndarray:
        """Which classes are in the image, `(Z,)` bool."""
        source = self._table.path if self._table else self.annotation_path(image_id)
        return label_vector(self.label_names(image_id), self.classes, source)

    def label_names(self, image_id: str) -> Sequence[str]:
        """The labels of the image as its annotation or row has them, classes or not."""
        if self._table is not None:
            return self._table.names(image_id)
        return read_annotation(self.annotation_path(image_id))

    def size(self, image_id: str) -> tuple[int, int]:
        """(H, W) in pixels as displayed, from the image's header."""
        if image_id not in self._sizes:
            self._sizes[image_id] = image_size(self.image_path(image_id))
        return self._sizes[image_id]

    def mask_path(self, image_id: str) -> Path | None:
        """The file in `SegmentationClassAug`, else in `SegmentationClass`, else None."""
        for folder in ("SegmentationClassAug", "SegmentationClass"):
            path = self.root / folder / f"{image_id}.png"
            if path.is_file():
                return path
        return None
