"""Prediction of a folder of images with an untrained segmenter in the place of a trained one."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from c2am import cli
from c2am.config import PipelineConfig, SegmenterConfig
from c2am.data import DataError, read_mask
from c2am.models import build_segmenter
from c2am.parsing import dump_config
from c2am.predict import ImageFolder, predict
from c2am.workspace import Workspace, write_tensors

CLASSES = 3


@pytest.fixture
def run(tmp_path):
    """A run with the segmenter of `cam`; its config names weights that are not there."""
    config = PipelineConfig(
        name="run",
        workspace=str(tmp_path),
        methods=("cam", "c2am"),
        device="cpu",
        segmenter=SegmenterConfig(backbone="resnet18", weights="no/such/file.pth"),
    )
    workspace = Workspace(tmp_path / "run")
    workspace.root.mkdir()
    workspace.config_path.write_text(dump_config(config))
    torch.manual_seed(0)
    net = build_segmenter(dataclasses.replace(config.segmenter, weights="none"), CLASSES)
    # Class 2 everywhere, whatever the image.
    net.aspp[0].bias.data[2] = 1e3
    write_tensors(workspace.folder("segmenter", "cam") / "weights.safetensors", net.state_dict())
    workspace.write_manifest("segmenter", "cam", {"metrics": {}})
    return workspace.root


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 56)), ("b.jpg", (40, 56)), ("c.JPG", (64, 33))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_every_image_gets_a_mask_of_its_size(run, images, tmp_path, crf):
    output = tmp_path / "masks"
    assert predict(run, images, output, method="cam", crf=crf) == 3
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "b.png", "c.png"]
    for name, size in (("a", (40, 56)), ("b", (40, 56)), ("c", (64, 33))):
        mask = read_mask(output / f"{name}.png")
        assert mask.shape == size
        assert set(np.unique(mask)) == {2}


def test_the_command_says_how_many(run, images, tmp_path, capsys):
    words = ["--images", str(images), "--output", str(tmp_path / "out"), "--method", "cam"]
    assert cli.main(["predict", str(run), *words]) == 0
    assert "3 masks written" in capsys.readouterr().out


@pytest.mark.parametrize("method", [None, "c2am", "unknown"])
def test_a_method_without_a_segmenter_is_refused(run, images, tmp_path, method):
    with pytest.raises(ValueError, match=r"no trained segmenter of method .+ there are: cam"):
        predict(run, images, tmp_path / "out", method=method)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="no images"):
        ImageFolder(tmp_path, CLASSES)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        ImageFolder(tmp_path / "nowhere", CLASSES)


def test_two_images_of_one_name_are_refused(images):
    Image.new("RGB", (8, 8)).save(images / "a.jpg")
    with pytest.raises(DataError, match="would get the same mask file"):
        ImageFolder(images, CLASSES)
