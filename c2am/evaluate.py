"""Score masks or class maps against the truth: `python -m c2am.evaluate` or `c2am evaluate`.

    c2am evaluate --predictions results --truth SegmentationClass --list val.txt
    c2am evaluate --cams runs/voc/cam/c2am --truth SegmentationClass --list train.txt

The first reads masks `<id>.png`, of any project; the second sweeps the background threshold over
files `<id>.safetensors` as stage `cam` writes them.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from c2am.config import EvaluationConfig
from c2am.data import VOC_CLASSES, read_mask
from c2am.data.dataset import read_classes, read_list
from c2am.evaluation import (
    Scores,
    best_threshold,
    confusion_matrix,
    scores,
    sweep_curve,
    sweep_thresholds,
    threshold_sweep,
)
from c2am.stages.class_maps import read_class_maps
from c2am.stages.parallel import map_images
from c2am.wording import counted
from c2am.workspace import WorkspaceError, write_json


class EvaluationError(ValueError):
    """A mask or map does not fit its truth; the message names the file."""


def evaluate_masks(
    predictions: Path, truth: Path, ids: Sequence[str], classes: Sequence[str]
) -> Scores:
    """Scores of the masks `<predictions>/<id>.png` against `<truth>/<id>.png`.

    Raises:
        DataError: a mask is missing or unreadable.
        EvaluationError: a mask differs in size from its truth, or holds an unknown class.
    """

    def confusion(image_id: str) -> Tensor:
        path = predictions / f"{image_id}.png"
        mask, target = _read(path), _read(truth / f"{image_id}.png")
        try:
            return confusion_matrix(mask, target, len(classes) + 1)
        except ValueError as error:
            raise EvaluationError(f"{path}: {error}") from error

    return scores(_total(map_images(confusion, ids, "evaluate")), classes)


def evaluate_cams(
    cams: Path,
    truth: Path,
    ids: Sequence[str],
    classes: Sequence[str],
    thresholds: Sequence[float],
) -> tuple[Scores, float, list[list[float]]]:
    """Scores of the `high_res` maps of `<cams>/<id>.safetensors` at the best threshold.

    Returns:
        The scores, the threshold, and the curve `[[threshold, mIoU], ...]`.

    Raises:
        DataError, WorkspaceError: a mask or a file of maps is missing or unreadable.
        EvaluationError: maps that differ in size from their truth, or an unknown class.
    """

    def confusion(image_id: str) -> Tensor:
        path = cams / f"{image_id}.safetensors"
        target = _read(truth / f"{image_id}.png")
        try:
            image = read_class_maps(path, "high_res")
            return threshold_sweep(image.maps, image.classes, target, thresholds, len(classes) + 1)
        except ValueError as error:
            raise EvaluationError(f"{path}: {error}") from error

    total = _total(map_images(confusion, ids, "evaluate"))
    curve = sweep_curve(total, thresholds, classes)
    threshold = best_threshold(curve)
    return scores(total[list(thresholds).index(threshold)], classes), threshold, curve


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 2 after bad input, which is named."""
    arguments = _parser().parse_args(argv)
    try:
        result = _evaluate(arguments)
        if arguments.json is not None:
            write_json(arguments.json, result)
    except (ValueError, WorkspaceError) as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print(result)
    return 0


def _evaluate(arguments: argparse.Namespace) -> dict:
    classes = VOC_CLASSES if arguments.classes == "voc" else read_classes(Path(arguments.classes))
    ids = read_list(arguments.list)
    if arguments.predictions is not None:
        found = evaluate_masks(arguments.predictions, arguments.truth, ids, classes)
        return {"images": len(ids)} | found.as_dict()
    points = sweep_thresholds(*arguments.thresholds)
    found, threshold, curve = evaluate_cams(arguments.cams, arguments.truth, ids, classes, points)
    return {"images": len(ids)} | found.as_dict() | {"threshold": threshold, "curve": curve}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="c2am evaluate",
        description="Score a folder of masks, or of class maps, against the truth.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--predictions", type=Path, help="folder of masks <id>.png")
    what.add_argument("--cams", type=Path, help="folder of class maps <id>.safetensors")
    parser.add_argument("--truth", type=Path, required=True, help="folder of masks <id>.png")
    parser.add_argument("--list", type=Path, required=True, help="file of image ids, one a line")
    parser.add_argument(
        "--classes", default="voc", help="voc, or a file of foreground names, one a line"
    )
    parser.add_argument(
        "--thresholds",
        type=float,
        nargs=3,
        default=EvaluationConfig().thresholds,
        metavar=("FIRST", "LAST", "STEP"),
        help="background thresholds for --cams",
    )
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    return parser


def _print(result: dict) -> None:
    table = Table("class", "IoU %")
    for name, value in result["iou"].items():
        table.add_row(name, "absent" if value is None else f"{100 * value:.2f}")
    console = Console()
    console.print(table)
    at = f" at threshold {result['threshold']:g}" if "threshold" in result else ""
    console.print(f"mIoU {100 * result['miou']:.2f} % of {counted(result['images'], 'image')}{at}")
    console.print(
        f"false positive {100 * result['false_positive']:.2f} %, "
        f"false negative {100 * result['false_negative']:.2f} % (foreground mean)"
    )


def _read(path: Path) -> Tensor:
    return torch.from_numpy(read_mask(path))


def _total(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


if __name__ == "__main__":
    sys.exit(main())
