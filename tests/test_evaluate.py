"""The command `c2am evaluate`."""

import json

import numpy as np
import pytest
import torch

from c2am.data import VOC_CLASSES
from c2am.evaluate import main
from c2am.workspace import write_mask, write_tensors


@pytest.fixture
def folder(tmp_path):
    """Two images: one predicted right, one half right."""
    truth = np.zeros((10, 20), np.uint8)
    truth[:, :10], truth[0] = 2, 255
    wrong = np.zeros_like(truth)
    wrong[:, :5] = 2
    for name, prediction in (("a", np.where(truth == 255, 0, truth)), ("b", wrong)):
        write_mask(tmp_path / "truth" / f"{name}.png", truth)
        write_mask(tmp_path / "predictions" / f"{name}.png", prediction.astype(np.uint8))
    (tmp_path / "list.txt").write_text("a\nb\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def _run(folder, *options: str, what: str = "predictions") -> int:
    return main(
        [
            *(f"--{what}", str(folder / what), "--truth", str(folder / "truth")),
            *("--list", str(folder / "list.txt"), *options),
        ]
    )


def test_scores_of_a_folder_of_masks(folder, capsys):
    classes = ("--classes", str(folder / "classes.txt"))
    assert _run(folder, *classes, "--json", str(folder / "out.json")) == 0
    result = json.loads((folder / "out.json").read_text())
    # Of 9 rows each: dog 90 of 90 and 45 of 90 pixels, background 180 right and 45 too many.
    assert result["iou"] == {"background": 180 / 225, "cat": None, "dog": 135 / 180}
    assert result["miou"] == pytest.approx((0.8 + 0.75) / 2)
    assert result["false_positive"] == 0
    assert result["false_negative"] == pytest.approx(0.25)
    assert result["images"] == 2
    printed = capsys.readouterr().out
    assert "dog" in printed
    assert "75.00" in printed
    assert "mIoU 77.50 % of 2 images" in printed


def test_voc_is_the_default(folder, capsys):
    assert _run(folder) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in VOC_CLASSES)


def test_a_missing_mask_is_named(folder, capsys):
    (folder / "predictions" / "b.png").unlink()
    assert _run(folder) == 2
    assert str(folder / "predictions" / "b.png") in capsys.readouterr().err


def test_a_mask_of_another_size_is_named(folder, capsys):
    write_mask(folder / "predictions" / "b.png", np.zeros((20, 10), np.uint8))
    assert _run(folder) == 2
    error = capsys.readouterr().err
    assert str(folder / "predictions" / "b.png") in error
    assert "prediction (20, 10), truth (10, 20)" in error


def test_an_unknown_class_is_named(folder, capsys):
    write_mask(folder / "predictions" / "a.png", np.full((10, 20), 3, np.uint8))
    assert _run(folder, "--classes", str(folder / "classes.txt")) == 2
    assert "holds class 3: expected 0..2" in capsys.readouterr().err


def test_bad_lists_and_classes_are_errors(folder, capsys):
    (folder / "list.txt").write_text("../a\n")
    assert _run(folder) == 2
    assert "list.txt" in capsys.readouterr().err
    (folder / "list.txt").write_text("a\n")
    (folder / "classes.txt").write_text("cat\ncat\n")
    assert _run(folder, "--classes", str(folder / "classes.txt")) == 2
    assert "each once" in capsys.readouterr().err


def _write_cam(folder, name: str, **tensors: torch.Tensor) -> None:
    write_tensors(folder / "cams" / f"{name}.safetensors", tensors)


def test_sweep_over_class_maps(folder, capsys):
    for name in ("a", "b"):
        maps = torch.full((1, 10, 20), 0.1)
        maps[0, :, :10] = 0.35 if name == "b" else 0.9
        _write_cam(folder, name, classes=torch.tensor([1]), high_res=maps.half())
    options = ("--thresholds", "0.1", "0.5", "0.1", "--json", str(folder / "out.json"))
    assert _run(folder, *options, what="cams") == 0
    result = json.loads((folder / "out.json").read_text())
    curve = dict(map(tuple, result["curve"]))
    assert list(curve) == [0.1, 0.2, 0.3, 0.4, 0.5]
    # The float16 just above 0.1 is 0.09998: background everywhere but in the object.
    assert result["threshold"] == 0.1
    assert curve[0.3] == 1
    assert curve[0.4] == pytest.approx((180 / 270 + 90 / 180) / 2)
    assert "at threshold 0.1" in capsys.readouterr().out


def test_files_that_are_no_class_maps_are_named(folder, capsys):
    for name in ("a", "b"):
        _write_cam(folder, name, classes=torch.tensor([1]), maps=torch.zeros(1, 10, 20))
    assert _run(folder, what="cams") == 2
    error = capsys.readouterr().err
    assert str(folder / "cams" / "a.safetensors") in error
    assert "high_res" in error


def test_masks_or_maps_not_both(folder):
    with pytest.raises(SystemExit):
        _run(folder, "--cams", str(folder))
