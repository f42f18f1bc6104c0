"""The order, resuming and recording of stages, with stages that only write a word."""

import json
import os
import re
import sys
import time
import types
from dataclasses import replace

import pytest
import yaml
from stand_ins import ALL, SCORE, Run, change

from c2am import train
from c2am.methods import build_method
from c2am.parsing import load_config
from c2am.trainer import TrainingError
from c2am.workspace import WorkspaceError


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_runs_every_stage_in_order(run):
    assert run() == ALL


def test_a_second_run_does_nothing_but_the_report(run):
    run()
    first = run.manifest("report")["wall_time"]
    run.actions["report"] = lambda context: time.sleep(0.3)
    assert run() == ["report"]
    assert run() == ["report"]
    assert run.manifest("report")["wall_time"] < first + 0.6  # not added up


def test_global_cam_is_left_out_where_no_method_asks_for_it(run):
    config = replace(run.config, methods=("cam", "constant"))
    assert "global_cam" not in run(config)
    assert run(config, stages=["global_cam"]) == ["global_cam"]


def test_the_baseline_is_left_out_where_all_start_from_imagenet(run, monkeypatch):
    config = replace(run.config, methods=("constant",))
    method = type(build_method("constant", config.front_door))
    monkeypatch.setattr(method, "starts_from", "imagenet")
    assert run(config)[0] == "front_door/constant"


def test_a_new_method_leaves_the_others_alone(run):
    run(replace(run.config, methods=("cam",)))
    ran = run()
    assert "global_cam" in ran
    assert not [name for name in ran if name.endswith("/cam")]
    assert [name for name in ran if name.endswith("/c2am")] == [n for n in ALL if "/c2am" in n]


def test_context_points_at_the_weights_and_folders(run):
    run()
    contexts = {context.name: context for context in run.contexts}
    weights = contexts["cam/cam"].classifier_weights()
    assert weights == run.root / "classifier" / "weights.safetensors"
    weights = contexts["cam/c2am"].classifier_weights()
    assert weights == run.root / "front_door" / "c2am" / "weights.safetensors"
    assert contexts["irn/c2am"].own("irn_labels") == run.root / "irn_labels" / "c2am"
    assert contexts["irn/c2am"].shared("global_cam") == run.root / "global_cam"
    assert contexts["irn/c2am"].method.name == "c2am"
    assert contexts["classifier"].method is None
    with pytest.raises(ValueError, match="classifier belongs to no method"):
        contexts["classifier"].own("cam")


def test_manifest_says_what_it_was_made_from(run):
    began = time.time()
    run()
    manifest = run.manifest("cam", "c2am")
    assert manifest["inputs"] == {
        "front_door/c2am": run.manifest("front_door", "c2am")["fingerprint"]
    }
    assert run.manifest("cam", "cam")["inputs"].keys() == {"classifier"}
    assert run.manifest("pseudo_masks", "cam")["inputs"].keys() == {"cam/cam", "irn/cam"}
    assert manifest["config"]["cam"]["scales"] == [1.0, 0.5, 1.5, 2.0]
    assert manifest["lists"] == {"score_list": "train", "val_list": "val"}
    assert manifest["versions"].keys() == {"c2am", "torch", "python"}
    assert manifest["metrics"]["score"] == SCORE
    assert manifest["seed"] == 0
    assert 0 <= manifest["wall_time"] <= time.time() - began
    assert 50e6 < manifest["peak_memory"] < 100e9
    assert re.search(r", \d+ threads?$", manifest["device"])


def test_the_config_is_kept_as_a_recipe(run):
    config = replace(run.config, classifier=replace(run.config.classifier, lr=0.05))
    run(config)
    assert load_config(run.root / "config.yaml") == config
    assert yaml.safe_load((run.root / "config.yaml").read_text())["classifier"]["lr"] == 0.05


def test_the_kept_config_continues_the_run_from_another_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = change(change(run.config, "data.root", "images"), "data.labels", "images/x.csv")
    assert run(change(config, "workspace", "runs")) == ALL
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    kept = load_config(run.root / "config.yaml")
    assert kept.data.labels == str(tmp_path / "images" / "x.csv")
    assert kept == change(run.config, "data.labels", kept.data.labels)
    assert run(kept) == ["report"]


def test_a_run_that_is_refused_leaves_the_config_as_it_was(run):
    run()
    with pytest.raises(ValueError, match="method 'nope'"):
        run(replace(run.config, methods=("nope",)))
    assert load_config(run.root / "config.yaml") == run.config


class Stopped(BaseException):
    pass


def stop(context) -> None:
    raise Stopped


def test_a_stage_that_was_stopped_is_continued(run):
    run.actions["irn/cam"] = stop
    with pytest.raises(Stopped):
        run()
    half = run.root / "irn" / "cam" / "half.safetensors"
    half.write_text("half the work")
    seconds = time.time() + 100
    os.utime(half, (seconds, seconds))  # 100 seconds of work
    assert run.workspace.read_manifest("irn", "cam") is None
    run.actions.clear()
    ran = run()
    assert ran == ALL[ALL.index("irn/cam") :]
    assert half.exists()
    assert 99 < run.manifest("irn", "cam")["wall_time"] < 160


def test_a_stage_that_was_stopped_under_other_settings_starts_anew(run):
    run.actions["irn/cam"] = stop
    with pytest.raises(Stopped):
        run()
    half = run.root / "irn" / "cam" / "half.safetensors"
    half.write_text("half the work")
    run.actions.clear()
    run(change(run.config, "irn.radius", 5))
    assert not half.exists()


def test_files_are_not_given_up_for_an_image_that_is_gone(run, capsys):
    run()
    made = run.root / "irn" / "cam" / "made.png"
    image = run.images.image_path("b")
    image.rename(image.with_suffix(".away"))
    assert command(run) == 2
    assert f"error: {image}: no such file" in capsys.readouterr().err
    assert made.exists()
    image.with_suffix(".away").rename(image)
    assert run() == ["report"]


def test_the_trace_is_asked_of_the_stages(run):
    run(profile=3)
    assert {context.profile for context in run.contexts} == {3}


def test_force_redoes_the_chosen_stages(run):
    run()
    old = run.root / "irn" / "cam" / "old.safetensors"
    old.write_text("old")
    assert run(stages=["irn"], force=True) == ["irn/cam", "irn/c2am"]
    assert not old.exists()
    assert run() == ["report"]


def test_start_leaves_out_what_comes_before(run):
    run()
    assert run(start="segmenter", force=True) == ALL[ALL.index("segmenter/cam") :]


def test_stages_and_start_together(run):
    run()
    assert run(stages=["cam", "report"], start="irn", force=True) == ["report"]


def test_a_stage_whose_input_is_missing_is_refused(run):
    with pytest.raises(ValueError, match="cam/cam needs classifier, which is not done"):
        run(stages=["cam"])
    assert run.ran == []


def test_a_stage_whose_input_is_of_other_settings_is_refused(run):
    run()
    config = change(run.config, "classifier.lr", 0.05)
    with pytest.raises(ValueError, match="cam/cam needs classifier, which was done with other"):
        run(config, stages=["cam"])
    assert run.workspace.read_manifest("cam", "cam") is not None


def test_the_report_is_made_of_whatever_there_is(run):
    assert run(stages=["report"]) == ["report"]


def test_unknown_stages_are_named(run):
    for options in ({"stages": ["cams"]}, {"start": "cams"}):
        with pytest.raises(ValueError, match="stage 'cams': expected one of classifier"):
            run(**options)


def test_draws_do_not_depend_on_what_was_skipped(run):
    run()
    before = dict(run.draws)
    assert len(set(before.values())) == len(before)
    run(stages=["irn"], force=True)
    assert run.draws == before
    run(replace(run.config, seed=1))
    assert all(run.draws[name] != before[name] for name in before)


def test_two_runs_in_one_folder_are_refused(run):
    with run.workspace.lock(), pytest.raises(WorkspaceError, match="in use"):
        run()


def test_metrics_that_are_not_json_leave_the_stage_unfinished(run, monkeypatch):
    module = types.SimpleNamespace(run=lambda context: {"loss": float("nan")})
    monkeypatch.setitem(sys.modules, "c2am.stages.classifier", module)
    with pytest.raises(ValueError, match=r"classifier/manifest\.json"):
        run()
    assert run.workspace.read_manifest("classifier") is None


def test_tables_and_report_are_printed(run, capsys):
    def page(context) -> None:
        (context.folder / "index.html").write_text("page")

    run.actions["report"] = page
    run()
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "c2am" in line)
    assert row.count("50.0") == 4  # seed on both lists, pseudo mask, val
    assert sum("GiB" in line for line in lines) == len(ALL)
    assert lines[-1] == f"report: {run.root / 'report' / 'index.html'}"


def command(run: Run, *words: str) -> int:
    return train.main(["--workspace", str(run.root.parent), "--device", "cpu", *words])


def test_the_command_runs_the_pipeline(run):
    assert command(run, "--methods", "cam", "--stages", "classifier,cam") == 0
    assert run.ran == ["classifier", "cam/cam"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("bad.txt: no ids"), 2, "error: bad.txt: no ids"),
        (WorkspaceError("cannot write x: No space left"), 2, "error: cannot write x"),
        (TrainingError("step 3: the loss is not finite"), 1, "error: step 3"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues"),
    ],
)
def test_errors_become_one_message_and_a_code(run, capsys, error, code, said):
    def fail(context) -> None:
        raise error

    run.actions["classifier"] = fail
    assert command(run) == code
    captured = capsys.readouterr().err.strip().splitlines()
    assert captured[-1].startswith(said)
    assert "Traceback" not in "".join(captured)
    if code != 130:
        with pytest.raises(type(error)):
            command(run, "--debug")


def test_a_signal_ends_with_its_code(run):
    def fail(context) -> None:
        raise SystemExit(143)

    run.actions["classifier"] = fail
    with pytest.raises(SystemExit) as exit_info:
        command(run)
    assert exit_info.value.code == 143
    run.actions.clear()
    assert command(run) == 0


def test_an_error_of_the_program_shows_its_traceback(run):
    def fail(context) -> None:
        raise ZeroDivisionError

    run.actions["classifier"] = fail
    with pytest.raises(ZeroDivisionError):
        command(run)


def test_an_unknown_method_is_bad_input(run, capsys):
    assert command(run, "--methods", "nope") == 2
    assert "method 'nope': expected one of" in capsys.readouterr().err


def test_a_read_only_workspace_is_bad_input(run, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert train.main(["--workspace", str(tmp_path / "file")]) == 2
    assert f"cannot write {tmp_path / 'file'}" in capsys.readouterr().err


def test_manifests_are_plain_json(run):
    run()
    for path in run.root.rglob("manifest.json"):
        assert json.loads(path.read_text())["fingerprint"]
