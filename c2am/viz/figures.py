"""The figures of a report, as matplotlib figures, and as SVG that follows the page's theme."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Points = Sequence[Sequence[float]]

COLOURS = ("#3b82c4", "#d9722e", "#2f9e78", "#b565c2", "#c9a227", "#d0506b", "#5a6fd6", "#7a8a99")
_GREY = "#9aa6b2"
_INK = "#010203"  # stands for the page's text colour until `to_svg`
_RULES: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "c2am",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "axes.titlesize": 11,
}
_THEME = "<style>svg{color:#1d2733}@media(prefers-color-scheme:dark){svg{color:#dde4ea}}</style>"


def positive_gradient(logit: NDArray, scale: float, classes: int) -> NDArray:
    """Eq. 7: gradient of the BCE by the logit of a class that is present, -M/Z sigmoid(-M s).

    `scale` is M, `classes` is Z; any shape, float64. With M = 1 it is that of plain BCE (Eq. 5).
    """
    return -scale / classes * _sigmoid(-scale * np.asarray(logit, dtype=np.float64))


def negative_gradient(logit: NDArray, scale: float, classes: int) -> NDArray:
    """Eq. 8: gradient of the BCE by the logit of a class that is absent, M/Z sigmoid(M s)."""
    return scale / classes * _sigmoid(scale * np.asarray(logit, dtype=np.float64))


def _sigmoid(x: NDArray) -> NDArray:
    return np.exp(-np.logaddexp(0, -x))  # exact in both tails, no overflow


@rc_context(_RULES)
def gradient_curves(scales: Mapping[str, float], *, limit: float = 150.0) -> Figure:
    """Figure 3 of the paper with the M_z of a run: Eq. 7 on the left, Eq. 8 on the right.

    `scales`: M_z of each class. Each is a thin line, the least and the greatest are named;
    plain BCE (M = 1) is dashed. Logits run from -`limit` to `limit`.
    """
    logit = np.linspace(-limit, limit, 601)
    classes = len(scales)
    ordered = sorted(scales.items(), key=lambda item: item[1])
    named = {ordered[0][0]: COLOURS[1], ordered[-1][0]: COLOURS[0]}
    figure, axes = _figure(2, 1)
    panels = (
        ("present classes (Eq. 7)", positive_gradient, -1),
        ("absent classes (Eq. 8)", negative_gradient, 1),
    )
    for axis, (title, gradient, sign) in zip(axes, panels, strict=True):
        bce = f"plain BCE, M = 1 (up to \N{PLUS-MINUS SIGN}{1 / classes:.3g})"
        axis.plot(logit, gradient(logit, 1.0, classes), "--", color="#888888", lw=1.2, label=bce)
        for name, scale in ordered:
            colour, width = (named[name], 1.8) if name in named else (_GREY, 0.6)
            label = f"{_plain(name)}, M = {scale:.4f}" if name in named else None
            values = gradient(logit, scale, classes)
            axis.plot(logit, values, color=colour, lw=width, label=label)
        axis.set(title=title, xlabel="logit s", ylabel="gradient of the loss by s")
        # The lines of the classes fill the panel; plain BCE leaves it.
        top = 1.4 * sign * ordered[-1][1] / classes
        axis.set_ylim(*sorted((-0.1 * top, top)))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    return figure


@rc_context(_RULES)
def threshold_curves(curves: Mapping[str, Points], chosen: Mapping[str, float | None]) -> Figure:
    """mIoU (%) over the background threshold, one line per method; dots mark `chosen`.

    `curves`: per method, pairs of threshold and mIoU, both fractions.
    """
    figure, (axis,) = _figure(1, 1)
    for index, (name, curve) in enumerate(curves.items()):
        points = np.asarray(curve, dtype=np.float64)
        colour = COLOURS[index % len(COLOURS)]
        axis.plot(points[:, 0], 100 * points[:, 1], color=colour, lw=1.8, label=_plain(name))
        threshold = chosen.get(name)
        if threshold is not None:
            value = np.interp(threshold, points[:, 0], 100 * points[:, 1])
            axis.plot([threshold], [value], "o", color=colour)
    axis.set(xlabel="background threshold", ylabel="mIoU (%)")
    axis.legend(fontsize=9)
    return figure


@rc_context(_RULES)
def training_curves(
    records: Mapping[str, Mapping[str, Points]], methods: Sequence[str] = ()
) -> Figure:
    """Loss over optimiser steps: one panel per trained stage, one line per method.

    `records`: stage -> method (empty where all share the stage) -> pairs of step and loss;
    `methods`: all of the run, each keeps its colour in all panels. The strong line is the
    running mean.
    """
    columns = min(2, len(records))
    figure, axes = _figure(columns, -(-len(records) // columns))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(methods)}
    for axis, (stage, lines) in zip(axes, records.items(), strict=False):
        for method, points in lines.items():
            steps, losses = np.asarray(points, dtype=np.float64).T
            colour = colours.get(method, _GREY)
            axis.plot(steps, losses, color=colour, lw=0.6, alpha=0.35)
            axis.plot(steps, running_mean(losses), color=colour, lw=1.8, label=_plain(method))
        axis.set(title=_plain(stage), xlabel="step", ylabel="loss")
        if any(lines):
            axis.legend(fontsize=8)
    for axis in axes[len(records) :]:
        axis.set_visible(False)
    return figure


def running_mean(values: NDArray) -> NDArray:
    """Exponential running mean of `values (n,)`, corrected for its start; spans about n / 25."""
    smoothing = max(0.0, 1 - 25 / len(values))
    out = np.empty(len(values))
    total = weight = 0.0
    for index, value in enumerate(values):
        total = smoothing * total + (1 - smoothing) * value
        weight = smoothing * weight + (1 - smoothing)
        out[index] = total / weight
    return out


@rc_context(_RULES)
def to_svg(figure: Figure) -> str:
    """The figure as an SVG document whose text and axes follow the reader's colour scheme."""
    with io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(r"(<svg[^>]*>)", lambda match: match.group(1) + _THEME, svg, count=1)


def _figure(columns: int, rows: int) -> tuple[Figure, list[Axes]]:
    width = 7.0 if columns == 1 else 4.2 * columns
    figure = Figure(figsize=(width, 3.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar sign in a class name is not mathematics
