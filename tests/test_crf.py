"""The command `c2am crf` and what it calls."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from c2am import cli, ops
from c2am.config import CrfConfig
from c2am.crf import refine_files, refine_labels
from c2am.data.images import read_mask
from c2am.workspace import write_mask


def make_pair(folder: Path, name: str) -> tuple[Path, Path, np.ndarray]:
    """An image of a bright square, and a mask of it that is shifted by three pixels."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    truth = np.zeros((40, 48), np.uint8)
    truth[10:30, 12:36] = 7
    pixels = np.where(truth[..., None] > 0, 220, 30).repeat(3, axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    labels = np.roll(truth, (3, 3), axis=(0, 1))
    labels[0, 0] = 255
    write_mask(folder / "masks" / f"{name}.png", labels)
    return folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png", truth


def test_crf_refines_a_mask_to_the_edges_of_the_image(tmp_path):
    image, labels, truth = make_pair(tmp_path, "square")
    output = tmp_path / "refined.png"
    assert cli.main(["crf", str(image), str(labels), "-o", str(output)]) == 0
    refined = read_mask(output)
    before = (read_mask(labels) != truth).mean()
    assert set(np.unique(refined)) == {0, 7}
    assert (refined != truth).mean() < 0.1 * before


def test_crf_without_iterations_keeps_the_mask(tmp_path):
    image, labels, _ = make_pair(tmp_path, "square")
    output = tmp_path / "same.png"
    words = ["crf", str(image), str(labels), "-o", str(output), "--iterations", "0"]
    assert cli.main(words) == 0
    before = read_mask(labels)
    np.testing.assert_array_equal(read_mask(output)[before != 255], before[before != 255])


def test_crf_refines_a_folder(tmp_path, capsys):
    for name in ("one", "two"):
        make_pair(tmp_path, name)
    folders = [str(tmp_path / name) for name in ("images", "masks", "out")]
    assert cli.main(["crf", *folders[:2], "-o", folders[2]]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]
    assert "2 masks written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4), np.uint8), "expected shape (40, 48), got (4, 4)"),
        (np.full((40, 48), 255, np.uint8), "every pixel is unsure"),
    ],
    ids=["size", "unsure"],
)
def test_crf_names_the_mask_that_does_not_fit(mask, message, tmp_path, capsys):
    image, labels, _ = make_pair(tmp_path, "square")
    write_mask(labels, mask)
    assert cli.main(["crf", str(image), str(labels), "-o", str(tmp_path / "x.png")]) == 2
    error = capsys.readouterr().err
    assert str(labels) in error
    assert message in error


def test_crf_of_a_mask_without_its_image(tmp_path, capsys):
    image, labels, _ = make_pair(tmp_path, "square")
    image.unlink()
    words = ["crf", str(image.parent), str(labels.parent), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert f"{labels}: no image square" in capsys.readouterr().err


def test_crf_finds_files_whatever_the_case_of_their_extensions(tmp_path):
    image, labels, _ = make_pair(tmp_path, "square")
    image.rename(image.with_suffix(image.suffix.upper()))
    labels.rename(labels.with_suffix(".PNG"))
    words = ["crf", str(image.parent), str(labels.parent), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["square.png"]


def test_crf_fills_a_mask_of_one_class(tmp_path):
    image, labels, _ = make_pair(tmp_path, "square")
    mask = np.full((40, 48), 3, np.uint8)
    mask[5:9] = 255
    write_mask(labels, mask)
    assert cli.main(["crf", str(image), str(labels), "-o", str(tmp_path / "x.png")]) == 0
    assert set(np.unique(read_mask(tmp_path / "x.png"))) == {3}


@pytest.mark.parametrize("probability", ["0", "1", "1.5"])
def test_crf_refuses_a_probability_out_of_range(probability, tmp_path, capsys):
    image, labels, _ = make_pair(tmp_path, "square")
    words = ["crf", str(image), str(labels), "-o", "x.png", "--gt-prob", probability]
    assert cli.main(words) == 2
    assert "expected a number between 0 and 1" in capsys.readouterr().err


def refine(*paths: Path) -> int:
    image, labels, output = (str(path) for path in paths)
    return cli.main(["crf", image, labels, "-o", output])


def test_crf_is_the_op_on_the_labels_of_the_mask(tmp_path):
    image, labels, _ = make_pair(tmp_path, "square")
    assert refine(image, labels, tmp_path / "out.png") == 0
    mask = torch.from_numpy(read_mask(labels))
    unary = ops.unary_from_labels((mask == 7).long(), 2, 0.7)
    unary[:, mask == 255] = np.log(2)
    marginals = ops.dense_crf(torch.from_numpy(np.array(Image.open(image))), unary)
    np.testing.assert_array_equal(read_mask(tmp_path / "out.png"), 7 * marginals.argmax(0))


def test_crf_of_folders_is_that_of_their_files(tmp_path):
    names = [f"image {n}" for n in range(7)]
    for shift, name in enumerate(names):
        image, labels, truth = make_pair(tmp_path, name)
        write_mask(labels, np.roll(truth, shift, axis=1))
    threads = torch.get_num_threads()
    assert refine(tmp_path / "images", tmp_path / "masks", tmp_path / "out") == 0
    assert torch.get_num_threads() == threads
    for name in names:
        image, labels = tmp_path / "images" / f"{name}.png", tmp_path / "masks" / f"{name}.png"
        assert refine(image, labels, tmp_path / "alone.png") == 0
        alone = (tmp_path / "alone.png").read_bytes()
        assert (tmp_path / "out" / f"{name}.png").read_bytes() == alone


def test_crf_of_a_file_into_a_folder(tmp_path):
    image, labels, _ = make_pair(tmp_path, "square")
    (tmp_path / "out").mkdir()
    assert refine(image, labels, tmp_path / "out") == 0
    assert (tmp_path / "out" / "square.png").is_file()


@pytest.mark.parametrize(
    ("image", "labels", "output", "message"),
    [
        ("images", "masks/square.png", "out", "images is a folder and"),
        ("images/square.png", "masks", "out", "masks is a folder and"),
        ("images/square.png", "masks/square.png", "x.jpg", "x.jpg: expected a name that ends in"),
        ("images", "masks", "images/square.png", "square.png: is a file, expected a folder"),
        ("images", "empty", "out", "empty: no masks"),
        ("images", "nothing", "out", "nothing: no such file or folder"),
        ("text.png", "masks/square.png", "x.png", "text.png: not an image file"),
        ("images/square.png", "text.png", "x.png", "text.png: cannot be read"),
    ],
)
def test_crf_says_which_path_is_wrong(image, labels, output, message, tmp_path, capsys):
    make_pair(tmp_path, "square")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("text")
    assert refine(tmp_path / image, tmp_path / labels, tmp_path / output) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_crf_names_the_broken_file_among_many(tmp_path, capsys):
    for name in "abcdef":
        image, labels, _ = make_pair(tmp_path, name)
    image.write_bytes(image.read_bytes()[:100])
    assert refine(image.parent, labels.parent, tmp_path / "out") == 2
    assert str(image) in capsys.readouterr().err
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix != ".png"]


@pytest.mark.parametrize("classes", [(0,), (0, 254), (3, 9, 200)])
@pytest.mark.filterwarnings("ignore:a mask has 0 and 255 only")
def test_refined_labels_are_among_those_given(classes):
    labels = np.random.default_rng(0).choice(np.array(classes, np.uint8), (20, 30))
    labels[4:6] = 255
    image = np.zeros((20, 30, 3), np.uint8)
    refined = refine_labels(image, labels, CrfConfig(iterations=1))
    assert refined.dtype == np.uint8
    assert set(np.unique(refined)) <= set(classes)


def test_foreground_of_255_is_warned_of():
    labels = np.eye(20, 30, dtype=np.uint8) * 255
    with pytest.warns(UserWarning, match="foreground is to be 1"):
        refined = refine_labels(np.zeros((20, 30, 3), np.uint8), labels, CrfConfig(iterations=1))
    assert not refined.any()


def test_progress_is_shown_in_a_terminal(tmp_path, monkeypatch):
    from rich.console import Console

    from c2am import progress

    for name in ("one", "two", "three"):
        make_pair(tmp_path, name)
    with (tmp_path / "screen").open("w+") as screen:
        console = Console(file=screen, force_terminal=True, width=120)
        monkeypatch.setattr(progress, "console", console)
        folders = (tmp_path / "images", tmp_path / "masks", tmp_path / "out")
        assert refine_files(*folders, CrfConfig()) == 3
    shown = (tmp_path / "screen").read_text()
    assert "3/3" in shown
    assert "images/s" in shown
