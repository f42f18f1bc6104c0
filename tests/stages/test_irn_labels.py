"""Stage `irn_labels` on images whose right labels are known."""

import errno

import numpy as np
import pytest
import torch

from c2am import workspace
from c2am.config import CrfConfig, IrnLabelsConfig
from c2am.data import DataError, read_mask
from c2am.stages import irn_labels
from c2am.stages.class_maps import ClassMaps
from c2am.stages.irn_labels import confident_labels
from c2am.workspace import WorkspaceError

SQUARE = np.s_[16:40, 20:44]


def _red_square() -> np.ndarray:
    """(56, 64, 3): a red square on a grey ground."""
    image = np.full((56, 64, 3), 110, np.uint8)
    image[SQUARE] = (220, 20, 20)
    return image


def _rough_cam() -> torch.Tensor:
    """(56, 64): high inside the square but not up to its edge, middling around it."""
    cam = torch.full((56, 64), 0.02)
    cam[10:46, 14:50] = 0.2
    cam[18:38, 22:42] = 0.9
    return cam


def test_the_crf_brings_rough_maps_to_the_edge_of_a_square():
    cams = ClassMaps(torch.tensor([4]), _rough_cam()[None].half())
    labels = confident_labels(torch.from_numpy(_red_square()), cams, IrnLabelsConfig()).numpy()
    assert labels.dtype == np.uint8
    inside = np.zeros((56, 64), bool)
    inside[SQUARE] = True
    assert (labels[inside] == 5).mean() > 0.95
    assert (labels[~inside] == 5).mean() < 0.01
    assert (labels[~inside] == 0).mean() > 0.9


def test_without_iterations_the_thresholds_alone_decide():
    cams = ClassMaps(torch.tensor([4]), _rough_cam()[None])
    config = IrnLabelsConfig(crf=CrfConfig(iterations=0))
    labels = confident_labels(torch.from_numpy(_red_square()), cams, config).numpy()
    expected = np.zeros((56, 64), np.uint8)
    expected[10:46, 14:50] = 255  # above the background threshold, below the foreground's
    expected[18:38, 22:42] = 5
    np.testing.assert_array_equal(labels, expected)


def test_only_the_classes_of_the_image_occur():
    maps = torch.stack([_rough_cam(), _rough_cam().roll(12, 1)])
    config = IrnLabelsConfig(crf=CrfConfig(iterations=0))
    labels = confident_labels(
        torch.from_numpy(_red_square()), ClassMaps(torch.tensor([1, 6]), maps), config
    )
    assert set(np.unique(labels)) == {0, 2, 7, 255}


@pytest.mark.parametrize("iterations", [0, 2])
def test_an_image_without_labels_is_background(iterations):
    cams = ClassMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 56, 64).half())
    config = IrnLabelsConfig(crf=CrfConfig(iterations=iterations))
    assert not confident_labels(torch.from_numpy(_red_square()), cams, config).any()


def test_the_stage_writes_each_image_once(make_context, pictures, write_cams):
    for name in ("a", "b"):
        pictures.add(name, _red_square(), [1])
    context = make_context("irn_labels", "cam", dataset=pictures)
    for name in ("a", "b"):
        write_cams(context.own("cam"), name, [1], _rough_cam()[None])
    metrics = irn_labels.run(context)
    labels = read_mask(context.folder / "a.png")
    assert set(np.unique(labels)) <= {0, 2, 255}
    assert metrics["foreground"] == pytest.approx((labels == 2).mean())
    assert metrics["background"] == pytest.approx((labels == 0).mean())
    assert sum(metrics.values()) == pytest.approx(1)
    kept = context.folder / "a.png"
    before = kept.stat().st_mtime_ns
    (context.folder / "b.png").unlink()
    assert irn_labels.run(context) == metrics
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(read_mask(context.folder / "b.png"), labels)


def test_what_fails_in_a_thread_is_named_and_leaves_no_half(
    make_context, pictures, write_cams, monkeypatch
):
    names = [f"{number}" for number in range(30)]
    context = make_context("irn_labels", "cam", dataset=pictures)
    for name in names:
        pictures.add(name, _red_square(), [1])
        write_cams(context.own("cam"), name, [1], _rough_cam()[None])
    context.config.irn_labels.crf.iterations = 0
    write_cams(context.own("cam"), "3", [1], _rough_cam()[None, :40])
    with pytest.raises(DataError, match=r"3_image.png: .*shape"):
        irn_labels.run(context)
    (context.own("cam") / "3.safetensors").unlink()
    with pytest.raises(WorkspaceError, match=r"cam/3.safetensors"):
        irn_labels.run(context)
    write_cams(context.own("cam"), "3", [1], _rough_cam()[None])
    gone = pictures.image_path("3")
    gone.rename(gone.with_suffix(".away"))
    with pytest.raises(DataError, match=r"3_image.png: no such file"):
        irn_labels.run(context)
    gone.with_suffix(".away").rename(gone)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workspace, "_flush", full)
    with pytest.raises(WorkspaceError, match=r"cannot write .*3.png: .*No space left"):
        irn_labels.run(context)
    assert not list(context.folder.glob(f"{workspace.TEMPORARY}*"))
    monkeypatch.undo()
    irn_labels.run(context)
    assert {path.stem for path in context.folder.glob("*.png")} == set(names)
