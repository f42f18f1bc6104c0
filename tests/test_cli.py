"""The command line: help, errors, and the words that need no trained run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from c2am import cli
from c2am.data import read_mask
from c2am.workspace import read_tensors, write_mask

WORDS = ("train", "evaluate", "predict", "crf", "data", "convert", "report", "bench", "doctor")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [["--help"], ["crf", "--help"], ["data", "draw", "--help"]])
def test_help_imports_no_torch(words):
    result = run_python(
        "import sys\nfrom c2am import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'matplotlib', 'rich'} & set(sys.modules)",
        *words,
    )
    assert result.returncode == 0, result.stderr
    assert "usage: c2am" in result.stdout


def test_help_lists_every_word(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for word in WORDS:
        assert f"\n    {word} " in text


@pytest.mark.parametrize("word", ["train", "evaluate"])
def test_help_of_a_forwarded_word_is_its_own(word, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([word, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: c2am {word}" in text
    assert {"train": "--recipe", "evaluate": "--truth"}[word] in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "{folder}"], "not a run (it has no config.yaml)"),
        (["predict", "{folder}", "--images", "a", "--output", "b"], "not a run"),
        (["crf", "{folder}/no.jpg", "{folder}/no.png", "-o", "{folder}/x.png"], "no.jpg"),
        (["convert", "{folder}/no.pth", "{folder}/out.safetensors"], "no.pth"),
        (["convert", "{folder}/no.pth", "{folder}/out.pth"], "ends in .safetensors"),
        (["data", "draw", "{folder}"], "holds no synthetic dataset"),
        (["data", "draw", "{folder}/new", "--classes", "99"], "expected 8 to 12"),
        (["train", "--recipe", "no-such"], "no-such"),
    ],
    ids=["report", "predict", "crf", "convert", "suffix", "draw", "range", "train"],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, tmp_path, capsys):
    code = cli.main([word.format(folder=tmp_path) for word in words])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(place, tmp_path):
    words = ["report", str(tmp_path)]
    words = ["--debug", *words] if place == "before" else [*words, "--debug"]
    with pytest.raises(ValueError, match="not a run"):
        cli.main(words)


def test_a_defect_is_not_taken_for_bad_input(monkeypatch):
    def broken(args, rest):
        raise TypeError("a defect")

    monkeypatch.setattr(cli, "_doctor", broken)
    with pytest.raises(TypeError, match="a defect"):
        cli.main(["doctor"])


@pytest.mark.parametrize("words", [["crf", "a", "b", "-o", "c", "--bad"], ["nothing"], []])
def test_unknown_arguments_are_refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage: c2am" in capsys.readouterr().err


def test_bench_says_where_the_benchmarks_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "ops"]) == 2
    assert "run `c2am bench` in the checkout" in capsys.readouterr().err


def test_bench_hands_over_arguments_and_exit_code(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__main__.py").write_text("import sys; sys.exit(3 if sys.argv[1:] == ['a'] else 4)")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "a"]) == 3


def test_convert_writes_the_weights_under_the_names_used_here(tmp_path, capsys):
    checkpoint = {
        "resnet50.conv1.weight": torch.rand(64, 3, 7, 7),
        "classifier.weight": torch.rand(20, 2048, 1, 1),
    }
    torch.save(checkpoint, tmp_path / "cam.pth")
    output = tmp_path / "new" / "cam.safetensors"
    assert cli.main(["convert", str(tmp_path / "cam.pth"), str(output)]) == 0
    converted = read_tensors(output)
    assert torch.equal(converted["head.weight"], checkpoint["classifier.weight"])
    assert f"2 tensors written to {output}" in capsys.readouterr().out


def test_data_draw_writes_a_dataset(tmp_path):
    root = tmp_path / "drawn"
    counts = ["--train-images", "6", "--val-images", "3", "--cut-images", "2", "--size", "64"]
    assert cli.main(["data", "draw", str(root), *counts]) == 0
    assert len(list((root / "JPEGImages").iterdir())) == 11


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
