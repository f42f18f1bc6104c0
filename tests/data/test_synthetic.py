"""The drawn dataset: exact, repeatable, confounded as strongly as asked for."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c2am.config import DataConfig, SyntheticConfig
from c2am.data import DataError, SyntheticDataset, open_dataset, read_image, read_mask
from c2am.data.drawing import CONTEXTS, OBJECTS, SHAPES
from c2am.data.synthetic import draw_dataset, draw_scene
from c2am.workspace import WorkspaceError

SMALL = SyntheticConfig(train_images=12, val_images=3, cut_images=3, size=64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "drawn"
    draw_dataset(SMALL, root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(drawn, tmp_path):
    draw_dataset(SMALL, tmp_path / "again")
    draw_dataset(replace(SMALL, seed=1), tmp_path / "other")
    first, again, other = map(contents, (drawn, tmp_path / "again", tmp_path / "other"))
    assert len(first) == 3 * 18 + 4 + 2
    assert first == again
    images = [name for name in first if name.startswith("JPEGImages")]
    assert all(first[name] != other[name] for name in images)


def test_an_image_does_not_depend_on_how_many_there_are(drawn, tmp_path):
    draw_dataset(replace(SMALL, train_images=2, val_images=1, cut_images=1), tmp_path / "few")
    few, all_of_them = contents(tmp_path / "few"), contents(drawn)
    scenes = [name for name in few if not name.startswith("ImageSets") and "/" in name]
    assert len(scenes) == 12
    assert all(few[name] == all_of_them[name] for name in scenes)


def test_it_is_a_vocdevkit_whose_labels_are_those_of_its_masks(drawn):
    dataset = open_dataset(DataConfig(kind="synthetic", root="", synthetic=SMALL), drawn)
    assert dataset.classes == tuple(SHAPES)[:8]
    assert dataset.ids("train_aug") == dataset.ids("train")
    counts = [len(dataset.ids(name)) for name in ("train", "val", "cut")]
    assert counts == [12, 3, 3]
    for image_id in (*dataset.ids("train"), *dataset.ids("val"), *dataset.ids("cut")):
        mask = read_mask(dataset.mask_path(image_id))
        assert (
            dataset.size(image_id)
            == mask.shape
            == read_image(dataset.image_path(image_id)).shape[:2]
        )
        values = set(np.unique(mask).tolist()) - {0}
        assert values == set((np.flatnonzero(dataset.labels(image_id)) + 1).tolist())
        assert values <= set(range(1, 9))
        assert values


def scenes(confounding: float, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Image, mask and class of scenes with objects of one class only."""
    config = SyntheticConfig(size=64)
    for number in range(count):
        rng = np.random.default_rng((7, number))
        image, mask = draw_scene(rng, config, confounding)
        values = np.unique(mask[mask > 0])
        if len(values) == 1:
            yield image.astype(float), mask, int(values[0]) - 1


def hue(colours: np.ndarray) -> np.ndarray:
    """Colours (n, 3) without their brightness: the light varies over an image."""
    return colours / colours.sum(-1, keepdims=True)


def nearest_material(pixels: np.ndarray, materials: tuple) -> int:
    """The material between whose two colours the mean of the pixels lies best."""
    mean = pixels.mean(0, keepdims=True)
    mixes = np.linspace(0, 1, 11)[:, None]
    distances = [
        np.abs(hue(mean) - hue(np.array(m.dark) * (1 - mixes) + np.array(m.light) * mixes))
        .sum(-1)
        .min()
        for m in materials
    ]
    return int(np.argmin(distances))


def tied_share(confounding: float) -> float:
    """Share of scenes whose background has the colours of the class's own context."""
    own = [
        nearest_material(image[mask == 0], CONTEXTS[:8]) == kind
        for image, mask, kind in scenes(confounding, 160)
    ]
    assert len(own) > 60
    return float(np.mean(own))


def test_the_context_is_tied_to_the_class_as_strongly_as_asked_for():
    tied, half, cut = (tied_share(strength) for strength in (1.0, 0.5, 0.0))
    assert tied > 0.75  # scenes of two objects of a class, odd light: the colours are no proof
    assert cut < 0.3
    assert tied - half > 0.15
    assert half - cut > 0.15


def test_cut_is_drawn_without_the_tie(drawn, monkeypatch):
    seen = {}

    def spy(rng, config, confounding):
        seen.setdefault(confounding, 0)
        seen[confounding] += 1
        return draw_scene(rng, config, confounding)

    monkeypatch.setattr("c2am.data.synthetic.draw_scene", spy)
    draw_dataset(replace(SMALL, confounding=0.75), drawn.parent / "spied")
    assert seen == {0.75: 15, 0.0: 3}


def test_masks_are_exact():
    """A pixel's colours change where its mask does: the mask is the set of the object's pixels."""
    right = total = 0
    for image, mask, kind in scenes(1.0, 40):
        foreground = image[mask == kind + 1]
        background = image[mask == 0]
        rim = (mask > 0) & ~np.roll(mask > 0, 2, 0) | (mask > 0) & ~np.roll(mask > 0, -2, 0)
        # Pixels of the rim look like the object's inside rather than like the background.
        near = np.abs(hue(image[rim])[:, None] - hue(foreground)[None, ::7]).sum(-1).min(1)
        far = np.abs(hue(image[rim])[:, None] - hue(background)[None, ::7]).sum(-1).min(1)
        right += (near < far).sum()
        total += rim.sum()
    assert right / total > 0.95


def test_materials_are_of_as_many_kinds_as_classes():
    assert len(SHAPES) == len(OBJECTS) == len(CONTEXTS) == 12
    assert len({material.texture for material in OBJECTS}) == 12


def test_a_drawn_folder_is_kept_and_other_settings_are_refused(drawn):
    before = (drawn / "classes.txt").stat().st_mtime_ns
    SyntheticDataset(SMALL, drawn)
    assert (drawn / "classes.txt").stat().st_mtime_ns == before
    message = re.escape(str(drawn / "synthetic.txt")) + ": drawn with other settings"
    with pytest.raises(DataError, match=message):
        SyntheticDataset(replace(SMALL, confounding=0.1), drawn)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="holds no synthetic dataset"):
        draw_dataset(SMALL, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_drawing_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        draw_dataset(SMALL, tmp_path / "drawn")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_drawing_leaves_nothing_that_is_taken_for_whole(tmp_path):
    root = tmp_path / "drawn"
    code = (
        "from pathlib import Path; from c2am.config import SyntheticConfig;"
        "from c2am.data.synthetic import draw_dataset;"
        f"draw_dataset(SyntheticConfig(train_images=100000), Path({str(root)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        for _ in range(1200):
            if list(tmp_path.glob(".drawn-*/drawn/JPEGImages/*")):
                break
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    assert list(tmp_path.glob(".drawn-*/drawn/JPEGImages/*"))
    assert not root.exists()
    draw_dataset(SMALL, root)
    assert len(SyntheticDataset(SMALL, root).ids("train")) == 12


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"cannot write .*file/drawn"):
        draw_dataset(SMALL, tmp_path / "file" / "drawn")
