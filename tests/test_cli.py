"""The command line: help, errors, and the words that need no trained run."""

import subprocess
import sys

import pytest
import torch

from c2am import cli
from c2am.workspace import read_tensors

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
    (folder / "__init__.py").touch()
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
