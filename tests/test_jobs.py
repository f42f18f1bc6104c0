"""What is done again after a change, with stages that only write a word."""

import sys
from dataclasses import replace

import pytest
from stand_ins import ALL, Run, change

from c2am.config import EvaluationConfig


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    return Run(tmp_path, monkeypatch)


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
        ("irn_labels.stream", True),
        ("segmenter.compile", True),
        ("segmenter.compile_mode", "reduce-overhead"),
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


@pytest.mark.parametrize(
    ("stage", "field", "value", "usual"),
    [
        ("segmenter", "segmenter.weights", "classifier", "pseudo_masks/cam"),
        ("predictions", "predictions.classifier_weight", 1.0, "segmenter/cam"),
    ],
)
def test_the_baseline_is_needed_where_it_is_asked(run, stage, field, value, usual):
    run()
    assert run.manifest(stage, "cam")["inputs"].keys() == {usual}
    run(change(run.config, field, value))
    assert run.manifest(stage, "cam")["inputs"].keys() == {"classifier", usual}


def test_a_stage_that_is_done_is_not_checked(run, monkeypatch):
    def refuse(config, dataset):
        raise ValueError("no such file of weights")

    run()
    monkeypatch.setattr(sys.modules["c2am.stages.irn"], "check", refuse, raising=False)
    assert run() == ["report"]
    for again in ({"config": change(run.config, "irn.lr", 0.05)}, {"force": True}):
        with pytest.raises(ValueError, match="no such file of weights"):
            run(**again)
        assert run.ran == []


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


def test_streaming_alone_redoes_nothing(run):
    run()
    on = change(run.config, "irn_labels.stream", True)
    assert run(on) == ["report"]
    # The maps are there, so other labels need no other pass.
    assert run(change(on, "irn_labels.fg_threshold", 0.4)) == ALL[ALL.index("irn_labels/cam") :]


def test_other_labels_than_those_streamed_need_another_pass(run):
    run(change(run.config, "irn_labels.stream", True))
    assert run() == ["report"]
    other = change(run.config, "irn_labels.fg_threshold", 0.4)
    message = "irn_labels/cam needs cam/cam, which was done with other settings"
    with pytest.raises(ValueError, match=message):
        run(other, stages=["irn_labels"])
    assert run(other) == ALL[ALL.index("cam/cam") :]
    assert run.manifest("cam", "cam")["streamed"] is None


def test_a_pass_that_is_only_scored_again_streams_nothing(run):
    run()
    again = replace(run.config, evaluation=EvaluationConfig(thresholds=(0.1, 0.2, 0.1)))
    assert "cam/cam" in run(change(again, "irn_labels.stream", True))
    assert run.manifest("cam", "cam")["streamed"] is None


def test_a_pass_that_began_to_stream_is_continued_without(run):
    def fail(context):
        raise KeyboardInterrupt

    run.actions["cam/cam"] = fail
    with pytest.raises(KeyboardInterrupt):
        run(change(run.config, "irn_labels.stream", True))
    half = run.root / "cam" / "cam" / "half.png"
    half.write_text("labels")
    run.actions.clear()
    run()
    assert half.exists()
    assert (
        run.manifest("cam", "cam")["streamed"] == run.manifest("irn_labels", "cam")["fingerprint"]
    )
    assert run.manifest("cam", "c2am")["streamed"] is None
