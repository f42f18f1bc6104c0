import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from c2am.viz import figures


@pytest.mark.parametrize("scale", [0.048, 0.1283, 1.0])
@pytest.mark.parametrize(
    ("target", "gradient"),
    [
        (1.0, figures.positive_gradient),
        (0.0, figures.negative_gradient),
    ],
    ids=["present-eq7", "absent-eq8"],
)
def test_gradients_are_those_of_autograd(scale, target, gradient):
    classes = 20
    logit = torch.linspace(-150, 150, 61, dtype=torch.float64, requires_grad=True)
    labels = torch.full_like(logit, target)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        scale * logit, labels, reduction="sum"
    )
    (expected,) = torch.autograd.grad(loss / classes, logit)
    found = gradient(logit.detach().numpy(), scale, classes)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-15)


def test_gradient_has_no_overflow_far_out():
    with np.errstate(all="raise", under="ignore"):
        values = figures.negative_gradient(np.array([-1e5, 0.0, 1e5]), 1.0, 20)
    np.testing.assert_allclose(values, [0, 1 / 40, 1 / 20])


def test_gradient_figure_draws_every_class_and_plain_bce():
    scales = {"aeroplane": 0.1283, "bottle": 0.048, "cat": 0.09, "dog": 0.095}
    figure = figures.gradient_curves(scales)
    left, right = figure.axes
    for axis, gradient in ((left, figures.positive_gradient), (right, figures.negative_gradient)):
        drawn = [line.get_ydata() for line in axis.lines]
        assert len(drawn) == 1 + len(scales)
        for scale in (1.0, *scales.values()):
            expected = gradient(axis.lines[0].get_xdata(), scale, len(scales))
            assert any(np.allclose(values, expected) for values in drawn)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "plain BCE, M = 1 (up to \N{PLUS-MINUS SIGN}0.25)",
        "bottle, M = 0.0480",
        "aeroplane, M = 0.1283",
    ]


def test_gradient_figure_of_one_class_names_it_once():
    axis = figures.gradient_curves({"cat": 0.1}).axes[0]
    assert len(axis.lines) == 2


def test_threshold_figure_has_the_curve_in_percent_and_a_dot():
    curve = [[0.1, 0.30], [0.2, 0.40], [0.3, 0.35]]
    (axis,) = figures.threshold_curves({"CAM": curve}, {"CAM": 0.15}).axes
    line, dot = axis.lines
    np.testing.assert_allclose(line.get_xydata(), [[0.1, 30], [0.2, 40], [0.3, 35]])
    np.testing.assert_allclose(dot.get_xydata(), [[0.15, 35]])


def test_training_figure_has_a_panel_per_stage_and_a_line_per_method():
    records = {
        "classifier": {"": [(0, 1.0), (10, 0.5)]},
        "irn": {"cam": [(0, 2.0)], "c2am": [(0, 3.0)]},
    }
    first, second = figures.training_curves(records, ["cam", "c2am"]).axes
    np.testing.assert_allclose(first.lines[0].get_xydata(), [[0, 1], [10, 0.5]])
    assert [line.get_label() for line in second.lines[1::2]] == ["cam", "c2am"]
    assert first.get_legend() is None


def test_an_odd_number_of_panels_leaves_the_last_one_empty():
    axes = figures.training_curves({name: {"": [(0, 1.0)]} for name in "abc"}).axes
    assert [axis.get_visible() for axis in axes] == [True, True, True, False]


def test_running_mean_is_corrected_for_its_start():
    np.testing.assert_allclose(figures.running_mean(np.full(100, 3.0)), np.full(100, 3.0))
    np.testing.assert_allclose(figures.running_mean(np.array([1.0, 2.0])), [1, 2])
    steps = figures.running_mean(np.repeat([0.0, 1.0], 50))
    assert steps[49] == 0
    assert 0 < steps[50] < steps[60] < steps[99] < 1


def test_svg_follows_the_colour_scheme_and_is_the_same_each_time():
    svgs = [figures.to_svg(figures.gradient_curves({"a $x_ & <b>": 0.1})) for _ in range(2)]
    assert svgs[0] == svgs[1]
    assert ET.fromstring(svgs[0]).tag == "{http://www.w3.org/2000/svg}svg"
    assert "currentColor" in svgs[0]
    assert figures._INK not in svgs[0]
    assert "a $x_ &amp; &lt;b&gt;" in svgs[0]
