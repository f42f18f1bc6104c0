"""The order, skipping, resuming and recording of stages, with stages that only write a word."""

import json
import os
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from c2am import pipeline, train
from c2am.config import EvaluationConfig, PipelineConfig
from c2am.jobs import STAGE_NAMES
from c2am.methods import build_method
from c2am.parsing import load_config
from c2am.trainer import TrainingError
from c2am.workspace import Workspace, WorkspaceError

SCORE = {"miou": 0.5, "iou": {"cat": 0.5}}


class Images:
    """Three images with a label each, as a dataset."""

    classes = ("cat", "dog")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists = {"train_aug": ["a", "b", "c"], "train": ["a"], "val": ["c"], "test": ["t"]}
        self.masks = {"a", "c"}
        for name in "abct":
            (folder / f"{name}.jpg").write_bytes(b"image")
            (folder / f"{name}.png").write_bytes(b"mask")

    def ids(self, split: str) -> list[str]:
        return self.lists[split]

    def image_path(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.jpg"

    def labels(self, image_id: str) -> np.ndarray:
        return np.array([True, image_id == "b"])

    def mask_path(self, image_id: str) -> Path | None:
        return self.folder / f"{image_id}.png" if image_id in self.masks else None


class Run:
    """A run with stand-ins for the stages; `ran` lists those that were called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.contexts: list = []
        self.draws: dict[str, float] = {}
        self.actions: dict[str, object] = {}
        (folder / "images").mkdir()
        self.images = Images(folder / "images")
        self.config = PipelineConfig(workspace=str(folder / "runs"), device="cpu")
        self.root = folder / "runs" / "run"
        self.workspace = Workspace(self.root)
        monkeypatch.setattr(pipeline, "open_dataset", lambda config, folder: self.images)
        for name in STAGE_NAMES:
            module = types.SimpleNamespace(run=self._stage)
            monkeypatch.setitem(sys.modules, f"c2am.stages.{name}", module)

    def _stage(self, context) -> dict:
        self.ran.append(context.name)
        self.contexts.append(context)
        self.draws[context.name] = torch.rand(()).item()
        (context.folder / "made.png").write_text("made")
        action = self.actions.get(context.name)
        if action:
            action(context)
        return {"score": SCORE, "val": SCORE, "val_crf": None, "curve": [], "threshold": 0.1}

    def __call__(self, config: PipelineConfig | None = None, **options: object) -> list[str]:
        """Run, and return the stages that were called."""
        self.ran.clear()
        pipeline.run(config or self.config, **options)
        return list(self.ran)

    def manifest(self, stage: str, method: str | None = None) -> dict:
        manifest = self.workspace.read_manifest(stage, method)
        assert manifest is not None
        return manifest


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    return Run(tmp_path, monkeypatch)


ALL = [
    "classifier",
    "global_cam",
    "front_door/c2am",
    *(f"{stage}/{method}" for stage in STAGE_NAMES[3:-1] for method in ("cam", "c2am")),
    "report",
]


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
    assert manifest["versions"].keys() == {"c2am", "torch", "python"}
    assert manifest["metrics"]["score"] == SCORE
    assert manifest["seed"] == 0
    assert 0 <= manifest["wall_time"] <= time.time() - began
    assert 50e6 < manifest["peak_memory"] < 100e9
    assert manifest["device"].endswith("threads")


def test_the_config_is_kept_as_a_recipe(run):
    config = replace(run.config, classifier=replace(run.config.classifier, lr=0.05))
    run(config)
    assert load_config(run.root / "config.yaml") == config
    assert yaml.safe_load((run.root / "config.yaml").read_text())["classifier"]["lr"] == 0.05


def change(config: PipelineConfig, path: str, value: object) -> PipelineConfig:
    section, _, name = path.partition(".")
    if not name:
        return replace(config, **{section: value})
    return replace(config, **{section: replace(getattr(config, section), **{name: value})})


@pytest.mark.parametrize(
    ("path", "value", "first"),
    [
        ("seed", 1, "classifier"),
        ("classifier.lr", 0.05, "classifier"),
        ("global_cam.size", 32, "global_cam"),
        ("cam.scales", (1.0,), "global_cam"),
        ("front_door.gamma", 2.0, "front_door/c2am"),
        ("irn_labels.fg_threshold", 0.4, "irn_labels/cam"),
        ("irn.radius", 5, "irn/cam"),
        ("pseudo_masks.beta", 8.0, "pseudo_masks/cam"),
        ("segmenter.steps", 10, "segmenter/cam"),
        ("predictions.flip", True, "predictions/cam"),
        ("predictions.crf", None, "predictions/cam"),
        ("report.gallery", 3, "report"),
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(run, path, value, first):
    run()
    ran = run(change(run.config, path, value))
    expected = ALL[ALL.index(first) :]
    if path == "global_cam.size":  # the method cam does not see the Global CAM
        expected = [name for name in expected if not name.endswith("/cam")]
    if path == "front_door.gamma":
        expected = [name for name in expected if not name.endswith("/cam")]
    assert ran == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.root", "/elsewhere"),
        ("data.threads", 8),
        ("classifier.checkpoint_every", 7),
        ("irn.log_every", 3),
        ("segmenter.compile", True),
        ("cam.batch_size", 1),
        ("predictions.batch_size", 1),
    ],
)
def test_a_setting_that_changes_no_result_redoes_nothing(run, path, value):
    run()
    assert run(change(run.config, path, value)) == ["report"]


@pytest.mark.parametrize(
    ("field", "name", "stages"),
    [
        ("score_list", "val", ("cam", "pseudo_masks")),
        ("val_list", "test", ("cam", "predictions")),
        ("test_list", "test", ("predictions",)),
    ],
)
def test_another_list_adds_to_the_stages_that_read_it(run, field, name, stages):
    run()
    kept = run.root / "cam" / "cam" / "another.png"
    kept.write_text("of the first list")
    trained = run.manifest("segmenter", "c2am")
    config = change(run.config, f"data.{field}", name)
    added = [job for job in ALL if job.split("/")[0] in stages]
    assert run(config) == [*added, "report"]
    assert kept.exists()
    assert run.manifest("segmenter", "c2am") == trained
    assert run(config) == ["report"]
    # Back at the first list all files are there: scored again, not made again.
    assert run() == [*added, "report"]
    assert kept.exists()


@pytest.mark.parametrize("between", [False, True], ids=["at_once", "later"])
def test_changed_images_of_a_list_redo_the_stages_that_read_it(run, between):
    run()
    if between:  # another val list in the meantime does not make the first be forgotten
        run(change(run.config, "data.val_list", "test"))
    old = run.root / "cam" / "cam" / "old.safetensors"
    old.write_text("of the first images")
    run.images.lists["val"] = ["c", "t"]
    added = [job for job in ALL if job.split("/")[0] in ("cam", "predictions")]
    assert run() == [*added, "report"]
    assert not old.exists()


def test_a_stage_is_not_run_on_maps_that_are_not_there(run):
    run()
    config = change(run.config, "data.score_list", "test")
    with pytest.raises(ValueError, match="pseudo_masks/cam needs cam/cam, which was done with"):
        run(config, stages=["pseudo_masks"])
    run(config, stages=["cam", "pseudo_masks"])


def test_a_method_that_starts_from_imagenet_needs_no_baseline(run, monkeypatch):
    run()
    monkeypatch.setattr(type(run.contexts[-2].method), "starts_from", "imagenet")
    ran = run(change(run.config, "classifier.lr", 0.05))
    assert "front_door/c2am" in ran  # its Global CAM is the baseline's
    manifest = run.manifest("front_door", "c2am")
    assert manifest["inputs"].keys() == {"global_cam"}


def test_changed_labels_and_images_redo_everything(run):
    run()
    (run.images.folder / "b.jpg").write_bytes(b"another image")
    assert run() == ALL
    run.images.lists["train_aug"] = ["a", "b"]
    assert run() == ALL


@pytest.mark.parametrize("what", ["thresholds", "masks"])
def test_new_scoring_keeps_the_files(run, what):
    run()
    kept = run.root / "cam" / "cam" / "made.png"
    kept.with_name("another.png").write_text("of the first run")
    before = run.manifest("cam", "cam")
    config, stages = run.config, ["cam", "pseudo_masks", "predictions"]
    if what == "masks":  # of the val list, which gets no pseudo masks
        stages.remove("pseudo_masks")
        (run.images.folder / "c.png").write_bytes(b"another mask")
    else:
        config = replace(config, evaluation=EvaluationConfig(thresholds=(0.1, 0.2, 0.1)))
    scored = [n for n in ALL if n.split("/")[0] in stages]
    assert run(config) == [*scored, "report"]
    assert kept.with_name("another.png").exists()
    assert run.manifest("cam", "cam")["fingerprint"] == before["fingerprint"]
    assert run.manifest("cam", "cam")["wall_time"] >= before["wall_time"]
    assert run(config) == ["report"]


def test_scoring_that_chooses_the_threshold_redoes_the_masks(run):
    config = change(run.config, "pseudo_masks.threshold", "best")
    run(config)
    ran = run(replace(config, evaluation=EvaluationConfig(thresholds=(0.1, 0.2, 0.1))))
    assert "segmenter/c2am" in ran
    assert "irn/c2am" not in ran


def test_files_of_another_configuration_are_removed(run):
    run()
    old = run.root / "cam" / "cam" / "old.safetensors"
    old.write_text("old")
    run(change(run.config, "cam.scales", (1.0,)))
    assert not old.exists()


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
