"""Keeps a run's scores and costs under git: one CSV line per method and stage."""

import csv
import json
from pathlib import Path

SCORES = {
    "cam": ("score", "val"),
    "pseudo_masks": ("score",),
    "predictions": ("val", "val_given", "val_crf"),
}
COLUMNS = (
    "recipe",
    "stage",
    "method",
    "split",
    "miou",
    "threshold",
    "loss",
    "seconds",
    "peak_memory_mb",
    "device",
    "torch",
    "c2am",
)


def record(run: Path, output: Path) -> list[dict[str, object]]:
    """Write the manifests of a run as a CSV.

    Args:
        run: The run's folder.
        output: The CSV to write.

    Returns:
        The rows written.

    Raises:
        FileNotFoundError: the folder holds no finished stage.
    """
    manifests = sorted(run.glob("*/manifest.json")) + sorted(run.glob("*/*/manifest.json"))
    if not manifests:
        raise FileNotFoundError(f"{run}: no finished stage (no manifest.json) below it")
    rows = [row for path in manifests for row in _rows(run, path)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _rows(run: Path, path: Path) -> list[dict[str, object]]:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    stage, *method = path.parent.relative_to(run).parts
    common = {
        "recipe": run.name,
        "stage": stage,
        "method": method[0] if method else "",
        "seconds": round(manifest["wall_time"], 1),
        "peak_memory_mb": round(manifest["peak_memory"] / 2**20),
        "device": manifest["device"],
        "torch": manifest["versions"]["torch"],
        "c2am": manifest["versions"]["c2am"],
    }
    metrics = manifest["metrics"]
    if "loss" in metrics:
        common["loss"] = round(metrics["loss"], 4)
    splits = [split for split in SCORES.get(stage, ()) if metrics.get(split)]
    if not splits:
        return [common]
    return [
        common
        | {
            "split": split,
            "miou": round(metrics[split]["miou"], 4),
            "threshold": metrics.get("threshold", ""),
        }
        for split in splits
    ]
