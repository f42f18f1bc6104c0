"""Table 1 of the paper: mIoU in % on PASCAL VOC 2012, to stand beside the numbers of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A published row; None where the paper gives no number.

    `method` is the method's name in this package.
    """

    method: str
    title: str
    backbone: str
    seed: float | None
    pseudo_mask: float
    val: float
    test: float


TABLE_1 = (
    PaperRow("cam", "CAM", "ResNet50", 48.3, 65.9, 63.5, 64.8),
    PaperRow("conta", "CONTA", "ResNet50", 48.8, 67.9, 65.3, 66.1),
    PaperRow("conta_seam", "CONTA + SEAM", "ResNet38", 56.2, 65.4, 66.1, 66.7),
    PaperRow("c2am", "C²AM", "ResNet50", 52.1, 69.6, 67.5, 67.7),
    PaperRow("advcam", "AdvCAM", "ResNet50", 55.6, 69.9, 68.1, 68.0),
    PaperRow("recam", "ReCAM", "ResNet50", 54.8, 70.8, 68.7, 68.5),
    PaperRow("rca", "RCA", "ResNet38", None, 74.1, 72.2, 72.8),
)


def paper_row(method: str) -> PaperRow | None:
    """The published row of a method, or None."""
    return next((row for row in TABLE_1 if row.method == method), None)


def method_title(method: str) -> str:
    """The method's name as written in the literature, or its plain name."""
    row = paper_row(method)
    return row.title if row else method
