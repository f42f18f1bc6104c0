"""The HTML report of a run: one page that needs no other file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from c2am.viz import figures
from c2am.viz.gallery import Gallery
from c2am.viz.overlays import heat
from c2am.viz.paper import TABLE_1, PaperRow, method_title, paper_row
from c2am.viz.picture import Picture, embed, embed_figure
from c2am.viz.summary import SCORES, MethodSummary, ScoreKind, StageRow, class_names, duration

_DASH = "\N{EN DASH}"
_SCORES_OF_PAPER = ("seed", "pseudo_mask", "val", "test")


@dataclass(frozen=True)
class GlobalCam:
    """The Global CAM of a class: its picture, M_z, and the number of maps it is the mean of."""

    name: str
    picture: Picture
    mean: float
    count: int


@dataclass(frozen=True)
class Cell:
    """A number in %, whether it is the best of its group, and its distance to plain CAM."""

    value: float | None
    best: bool = False
    gain: float | None = None


@dataclass(frozen=True)
class MethodRow:
    """A row of the method table: cells of this run, and the paper's row, where there is one.

    The thresholds are the background thresholds that seeds and pseudo masks were scored at.
    """

    title: str
    name: str
    cells: list[Cell]
    seed_threshold: float | None
    mask_threshold: float | None
    paper: PaperRow | None


@dataclass(frozen=True)
class Report:
    """Everything the page shows; what a run does not have is empty or None."""

    title: str
    facts: list[tuple[str, str]]
    kinds: list[ScoreKind]
    lists: dict[str, str]
    methods: list[MethodRow]
    about: list[tuple[str, str]]
    other_rows: list[PaperRow]
    class_rows: list[tuple[str, list[list[Cell]]]]
    errors: list[tuple[str, list[tuple[float, float] | None]]]
    seed_curves: Picture | None
    mask_curves: Picture | None
    global_cams: list[GlobalCam]
    global_cam_peak: float
    gradients: Picture | None
    gallery: Gallery
    training: Picture | None
    stages: list[StageRow]
    config: str
    versions: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> dict[str, list[str]]:
        """Stages of the run that have not finished, with the methods they lack."""
        found: dict[str, list[str]] = {}
        for row in self.stages:
            if not row.done:
                found.setdefault(row.stage, []).extend([row.method] if row.method else [])
        return found


def method_rows(methods: Sequence[MethodSummary], kinds: Sequence[ScoreKind]) -> list[MethodRow]:
    """Cells of every method and kind of score, the best marked, gains measured from `cam`."""
    baseline = next((method for method in methods if method.name == "cam"), None)
    rows = []
    for method in methods:
        cells = []
        for kind in kinds:
            value = method.miou(kind.key)
            best = value is not None and value == _best(m.miou(kind.key) for m in methods)
            start = baseline.miou(kind.key) if baseline and baseline is not method else None
            gain = None if value is None or start is None else 100 * (value - start)
            percent = None if value is None else 100 * value
            cells.append(Cell(percent, best and len(methods) > 1, gain))
        rows.append(
            MethodRow(
                title=method_title(method.name),
                name=method.name,
                cells=cells,
                seed_threshold=method.seed_threshold,
                mask_threshold=method.mask_threshold,
                paper=paper_row(method.name),
            )
        )
    return rows


def class_rows(
    methods: Sequence[MethodSummary], kinds: Sequence[ScoreKind]
) -> list[tuple[str, list[list[Cell]]]]:
    """For each class, for each kind of score, a cell per method."""
    rows = []
    for name in class_names(methods):
        groups = []
        for kind in kinds:
            values = [
                method.scores.get(kind.key, {}).get("iou", {}).get(name) for method in methods
            ]
            best = _best(values)
            groups.append(
                [
                    Cell(
                        None if v is None else 100 * v,
                        v is not None and v == best and len(values) > 1,
                    )
                    for v in values
                ]
            )
        rows.append((name, groups))
    return rows


def error_rows(
    methods: Sequence[MethodSummary], kinds: Sequence[ScoreKind]
) -> list[tuple[str, list[tuple[float, float] | None]]]:
    """Per method, for each kind of score, its over- and under-activation in %."""
    rows = []
    for method in methods:
        rates: list[tuple[float, float] | None] = []
        for kind in kinds:
            score = method.scores.get(kind.key)
            rates.append(
                (100 * score["false_positive"], 100 * score["false_negative"]) if score else None
            )
        rows.append((method_title(method.name), rates))
    return rows


def global_cams(
    maps: torch.Tensor, count: torch.Tensor, classes: Sequence[str]
) -> tuple[list[GlobalCam], float]:
    """Pictures of `maps (Z,S,S)`, all on one scale, and the value at which that scale ends."""
    peak = float(maps.max()) if maps.numel() else 0.0
    shown = []
    for name, values, number in zip(classes, maps.float(), count, strict=True):
        mean = float(values.mean())
        pixels = heat(values.numpy() / (peak or 1.0), "inferno")
        picture = embed(pixels, f"Global CAM of {name}, mean {mean:.4f}", photo=False)
        shown.append(GlobalCam(name, picture, mean, int(number)))
    return shown, peak


def gradient_picture(scales: Mapping[str, float]) -> Picture | None:
    """Figure 3 with the M_z of this run; None without any."""
    if not scales:
        return None
    low, high = min(scales.values()), max(scales.values())
    alt = (
        "Gradient of the loss by the logit, for present and for absent classes. Scaling the logit "
        f"by M (here {low:.4f} to {high:.4f}) makes the gradient smaller, and lets it reach "
        "logits at which that of the plain loss has vanished."
    )
    return embed_figure(figures.gradient_curves(scales), alt)


def curve_pictures(methods: Sequence[MethodSummary]) -> tuple[Picture | None, Picture | None]:
    """Threshold curves of the seeds and of the pseudo masks."""
    seeds = {method_title(m.name): m.seed_curve for m in methods if m.seed_curve}
    masks = {method_title(m.name): m.mask_curve for m in methods if m.mask_curve}
    seed_chosen = {method_title(m.name): m.seed_threshold for m in methods}
    mask_chosen = {method_title(m.name): m.mask_threshold for m in methods}
    return _curves(seeds, seed_chosen, "seeds"), _curves(masks, mask_chosen, "pseudo masks")


def training_picture(
    records: Mapping[str, Mapping[str, figures.Points]], methods: Sequence[str]
) -> Picture | None:
    """Loss curves of the trained networks by stage and method; None without any."""
    if not records:
        return None
    ends = [
        f"{stage} {method}".strip() + f" ends at {points[-1][1]:.3g}"
        for stage, lines in records.items()
        for method, points in lines.items()
    ]
    figure = figures.training_curves(records, methods)
    return embed_figure(figure, f"Training loss: {'; '.join(ends)}.")


def scored_kinds(methods: Sequence[MethodSummary]) -> list[ScoreKind]:
    """The kinds of score that at least one method has."""
    return [kind for kind in SCORES if any(kind.key in method.scores for method in methods)]


def other_paper_rows(methods: Sequence[MethodSummary]) -> list[PaperRow]:
    """Published rows of methods that this run does not have."""
    names = {method.name for method in methods}
    return [row for row in TABLE_1 if row.method not in names]


def render(report: Report) -> str:
    """The page as HTML. All text is escaped, also class names and image ids."""
    environment = Environment(
        loader=PackageLoader("c2am.viz"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"percent": _percent, "gain": _gain, "threshold": _threshold}
    environment.filters.update(filters, duration=_duration, memory=_memory)
    template = environment.get_template("report.html.j2")
    return template.render(report=report, paper_columns=_SCORES_OF_PAPER)


def _curves(
    curves: Mapping[str, figures.Points],
    chosen: Mapping[str, float | None],
    what: str,
) -> Picture | None:
    if not curves:
        return None
    peaks = []
    for name, curve in curves.items():
        threshold, miou = max(curve, key=lambda point: point[1])
        peaks.append(f"{name} peaks at {100 * miou:.1f} % with threshold {threshold:.2f}")
    alt = f"mIoU of the {what} over the background threshold: {'; '.join(peaks)}."
    return embed_figure(figures.threshold_curves(curves, chosen), alt)


def _best(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _percent(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1f}"


def _gain(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")  # a minus sign as wide as the plus


def _threshold(value: float | None) -> str:
    return _DASH if value is None else f"{value:.2f}"


def _duration(seconds: float | None) -> str:
    return _DASH if seconds is None else duration(seconds)


def _memory(size: float | None) -> str:
    if size is None:
        return _DASH
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
