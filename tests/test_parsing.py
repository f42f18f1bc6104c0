import dataclasses
import re

import pytest
import yaml

from c2am import train
from c2am.config import PipelineConfig
from c2am.parsing import ConfigError, dump_config, load_config, parse, recipe_names, recipe_path
from c2am.runs import open_run


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses_and_survives_its_dump(tmp_path, name):
    config = load_config(name)
    assert isinstance(config, PipelineConfig)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_dump_holds_every_field():
    dumped = yaml.safe_load(dump_config(PipelineConfig()))
    assert dumped.keys() == {field.name for field in dataclasses.fields(PipelineConfig)}
    assert dumped["predictions"]["crf"]["bilateral_sxy"] == 67.0


def test_without_anything_the_defaults():
    command = parse([])
    assert command.config == PipelineConfig()
    assert (command.stages, command.start, command.force) == (None, None, False)


@pytest.mark.parametrize(
    "argv",
    [
        ["--recipe", "demo", "--classifier.lr", "0.05", "--data.root", "../x"],
        ["--classifier.lr=0.05", "--data.root=../x", "--recipe=demo"],
    ],
    ids=["after", "before"],
)
def test_options_override_the_recipe_wherever_they_stand(argv):
    config = parse(argv).config
    assert (config.classifier.lr, config.data.root) == (0.05, "../x")
    assert config.data.kind == "synthetic"
    assert config.classifier.head_lr == load_config("demo").classifier.head_lr


def test_options_of_the_run():
    command = parse(["--stages", "cam,irn", "--from", "irn", "--force", "--debug", "--seed", "3"])
    assert command.profile == 0
    assert parse(["--profile", "5"]).profile == 5
    assert command.stages == ("cam", "irn")
    assert command.start == "irn"
    assert command.force
    assert command.debug
    assert command.config.seed == 3


@pytest.mark.parametrize("value", ["cam,constant", "[cam, constant]", "[cam,constant]"])
def test_methods_are_a_plain_list(value):
    assert parse(["--methods", value]).config.methods == ("cam", "constant")


def test_optional_sections():
    assert parse(["--predictions.crf", "null"]).config.predictions.crf is None
    crf = parse(["--predictions.crf.iterations", "3"]).config.predictions.crf
    assert (crf.iterations, crf.bilateral_sxy) == (3, 67.0)


def test_values_are_typed():
    config = parse(["--cam.scales", "[1, 2]", "--pseudo_masks.threshold", "best"]).config
    assert config.cam.scales == (1.0, 2.0)
    assert config.pseudo_masks.threshold == "best"
    assert parse(["--pseudo_masks.threshold", "0.3"]).config.pseudo_masks.threshold == 0.3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--classifier.lrr", "1"], "classifier.lrr"),
        (["--classifier.lr", "-1"], "classifier.lr = -1.0: expected a number above 0"),
        (["--seed", "-1"], "seed = -1: expected a number of at least 0"),
        (["--segmenter.scales", "[]"], "segmenter.scales = (): expected positive numbers"),
        (["--irn_labels.gt_prob", "1"], "irn_labels.gt_prob = 1.0: expected a number between"),
        (["--classifier.lr", "fast"], "classifier.lr"),
        (["--data.kind", "coco"], "data.kind"),
        (["--recipe", "nope"], "recipe 'nope'"),
        (["--methods", "cam,cam"], "methods"),
        (
            ["--irn.accumulate", "2", "--irn.compile_mode", "reduce-overhead"],
            "irn.compile_mode = 'reduce-overhead': expected another mode",
        ),
        (["--irn_labels.crf.iterations", "-2"], "iterations"),
        (["stray"], "stray"),
        (["--irn.step", "4"], "unrecognized arguments: --irn.step 4"),  # no abbreviations
        (["--method", "cam"], "unrecognized arguments: --method cam"),
    ],
)
def test_bad_options_are_named(argv, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        parse(argv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classifier: {lrr: 1}", "lrr"),
        ("clasifier: {lr: 1}", "clasifier"),
        ("classifier: {lr: [1, 2]}", "classifier.lr"),
        ("classifier: [", "while parsing"),
        ("", "expected fields and their values, found nothing"),
        ("- demo", "found a list"),
        ("classifier:", "classifier: has no value"),
        ("classifier: 3", "classifier: expected a section"),
        ("classifier: {lr: -1}", "classifier.lr = -1.0: expected a number above 0"),
    ],
)
def test_bad_recipes_are_named(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"{path}: .*" + said.replace(".", r"\.")):
        load_config(path)


def test_unknown_fields_of_a_stored_run_are_all_named_with_those_there_are(tmp_path, capsys):
    run = tmp_path / "old"
    run.mkdir()
    text = dump_config(load_config("demo")).replace("classifier_weight:", "present_above:")
    (run / "config.yaml").write_text(text.replace("gaussian_sxy:", "sxy:") + "sed: 3\n")
    with pytest.raises(ConfigError) as error:
        open_run(run)
    first, *others = str(error.value).split("; ")
    assert first.startswith(f"{run}/config.yaml: unknown sed (the fields are name, workspace, seed")
    assert [each.partition(" (")[0] for each in others] == [
        "unknown irn_labels.crf.sxy",
        "unknown predictions.present_above",
        "unknown predictions.crf.sxy",
    ]
    assert "(the fields of predictions are flip, batch_size, classifier_weight, crf" in others[1]
    assert str(error.value).endswith("another version of c2am wrote the file")
    assert train.main(["--recipe", str(run / "config.yaml")]) == 2
    assert capsys.readouterr().err == f"error: {error.value}\n"


def test_recipe_path_takes_names_and_files(tmp_path):
    (tmp_path / "own.yaml").write_text("name: own")
    assert recipe_path("demo").name == "demo.yaml"
    assert load_config(tmp_path / "own.yaml").name == "own"


def test_bad_input_ends_with_code_2_and_one_message(capsys):
    assert train.main(["--classifier.lr", "-1"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: classifier.lr = -1.0: expected a number above 0\n"
    assert captured.out == ""


def test_debug_shows_where_it_was_raised():
    with pytest.raises(ConfigError):
        train.main(["--classifier.lr", "-1", "--debug"])


def test_print_config_prints_a_recipe(capsys, tmp_path):
    assert train.main(["--recipe", "demo", "--seed", "7", "--print_config"]) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_config(path) == load_config("demo", ["--seed", "7"])
    assert train.main(["--classifier.lr", "-1", "--print_config"]) == 2
    assert capsys.readouterr().out == ""


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main(["--help"])
    assert exit_info.value.code == 0
    out = capsys.readouterr().out
    assert "Learning rate of the backbone." in out
    assert "--segmenter.poly_interval" in out
    assert "demo" in out
