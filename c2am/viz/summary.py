"""What a run has measured, read from its manifests: scores, curves, times, versions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from c2am.events import read_metrics
from c2am.workspace import Workspace

StageKey = tuple[str, str | None]  # stage, and its method or None where all methods share it


class ScoreKind(NamedTuple):
    """A number of the table: where it comes from, and its column in the paper's table."""

    key: str
    title: str
    stage: str
    metric: str
    paper: str | None


SCORES = (
    ScoreKind("seed", "Seed", "cam", "score", "seed"),
    ScoreKind("seed_val", "Seed, val", "cam", "val", None),
    ScoreKind("pseudo_mask", "Pseudo mask", "pseudo_masks", "score", "pseudo_mask"),
    ScoreKind("val", "Segmenter", "predictions", "val", None),
    ScoreKind("val_given", "Segmenter given labels", "predictions", "val_given", None),
    ScoreKind("val_crf", "Segmenter + CRF", "predictions", "val_crf", "val"),
)


@dataclass(frozen=True)
class StageRow:
    """One stage of a run: done or missing, its wall time in seconds and peak memory in bytes."""

    stage: str
    method: str | None
    done: bool
    seconds: float | None = None
    peak_memory: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class MethodSummary:
    """The scores of a method by `ScoreKind.key` (metrics as written by the stages), its curves."""

    name: str
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    seed_curve: list[list[float]] = field(default_factory=list)
    mask_curve: list[list[float]] = field(default_factory=list)
    seed_threshold: float | None = None
    mask_threshold: float | None = None

    def miou(self, key: str) -> float | None:
        """mIoU as a fraction, or None where there is none."""
        score = self.scores.get(key)
        return None if score is None else score["miou"]


def summarize_method(workspace: Workspace, method: str) -> MethodSummary:
    """Collects what the stages of `method` have measured so far."""
    seeds = _metrics(workspace, "cam", method)
    masks = _metrics(workspace, "pseudo_masks", method)
    scores = {}
    for kind in SCORES:
        score = _metrics(workspace, kind.stage, method).get(kind.metric)
        if score:  # None for a list without masks
            scores[kind.key] = score
    return MethodSummary(
        name=method,
        scores=scores,
        seed_curve=seeds.get("curve") or [],
        mask_curve=masks.get("curve") or [],
        seed_threshold=seeds.get("threshold"),
        mask_threshold=masks.get("threshold"),
    )


def stage_rows(workspace: Workspace, expected: Iterable[StageKey]) -> list[StageRow]:
    """One row for each of the `expected` stages, in their order."""
    rows = []
    for stage, method in expected:
        manifest = workspace.read_manifest(stage, method)
        if manifest is None:
            rows.append(StageRow(stage, method, done=False))
            continue
        rows.append(
            StageRow(
                stage,
                method,
                done=True,
                seconds=manifest.get("wall_time"),
                peak_memory=manifest.get("peak_memory"),
                device=manifest.get("device"),
            )
        )
    return rows


def versions(workspace: Workspace, expected: Iterable[StageKey]) -> dict[str, list[str]]:
    """Versions of the software that wrote the stages; several where a run was continued."""
    found: dict[str, set[str]] = {}
    for stage, method in expected:
        manifest = workspace.read_manifest(stage, method) or {}
        for name, version in manifest.get("versions", {}).items():
            found.setdefault(name, set()).add(str(version))
    return {name: sorted(found[name]) for name in sorted(found)}


def read_losses(workspace: Workspace) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Losses from metrics.jsonl: stage -> method (empty if shared) -> pairs of step and loss."""
    losses: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in read_metrics(workspace.events):
        if line.get("loss") is not None:  # null where the loss was not finite
            stage, _, method = line["stage"].partition("/")
            points = losses.setdefault(stage, {}).setdefault(method, [])
            points.append((line["step"], line["loss"]))
    return losses


def class_names(methods: Sequence[MethodSummary]) -> list[str]:
    """Classes that have an IoU, in the order of the first score that lists them."""
    names: dict[str, None] = {}
    for method in methods:
        for score in method.scores.values():
            names.update(dict.fromkeys(score.get("iou", {})))
    return list(names)


def duration(seconds: float) -> str:
    """`1:02:03` or `2.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _metrics(workspace: Workspace, stage: str, method: str | None) -> dict[str, Any]:
    manifest = workspace.read_manifest(stage, method)
    return {} if manifest is None else manifest.get("metrics", {})
