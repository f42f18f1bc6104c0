"""Stage `report`: one HTML page with the scores, figures and gallery of the run.

It reads only what the other stages have written, so it works on a run that is not finished and
says what is missing.
"""

import sys
from pathlib import Path

from c2am.config import PipelineConfig
from c2am.data.dataset import Dataset
from c2am.jobs import Jobs
from c2am.methods import build_method
from c2am.runs import shown_config
from c2am.stages.context import StageContext
from c2am.viz import report as page
from c2am.viz.gallery import Gallery, build_gallery, choose_images
from c2am.viz.summary import (
    ScoreKind,
    StageKey,
    read_losses,
    stage_rows,
    summarize_method,
    versions,
)
from c2am.wording import counted
from c2am.workspace import Workspace, atomic, read_tensors

PAGE = "index.html"


def run(context: StageContext) -> dict:
    """Writes `report/index.html`; returns its size and how many stages it found finished."""
    report = build(context.config, context.workspace, context.dataset)
    target = write(report, context.workspace)
    done = sum(row.done for row in report.stages)
    return {"page": PAGE, "bytes": target.stat().st_size, "stages": done}


def write(report: page.Report, workspace: Workspace) -> Path:
    """Renders the page into the run; returns its path."""
    target = workspace.folder("report") / PAGE
    with atomic(target) as temporary:
        temporary.write_text(page.render(report), encoding="utf-8")
    return target


def build(config: PipelineConfig, workspace: Workspace, dataset: Dataset) -> page.Report:
    """Collects what the page shows from the manifests and files of a run."""
    methods = [summarize_method(workspace, name) for name in config.methods]
    kinds = page.scored_kinds(methods)
    expected = expected_stages(config, dataset)
    maps, peak = _global_cams(workspace, dataset)
    seed_curves, mask_curves = page.curve_pictures(methods)
    scales = {item.name: config.front_door.gamma * item.mean for item in maps}
    return page.Report(
        title=config.name,
        facts=_facts(config, dataset),
        kinds=kinds,
        lists={kind.key: _list_of(kind, config) for kind in kinds},
        methods=page.method_rows(methods, kinds),
        about=[(name, _about(name, config)) for name in config.methods],
        other_rows=page.other_paper_rows(methods),
        class_rows=page.class_rows(methods, kinds),
        errors=page.error_rows(methods, kinds),
        seed_curves=seed_curves,
        mask_curves=mask_curves,
        global_cams=maps,
        global_cam_peak=peak,
        gradients=page.gradient_picture(scales),
        gallery=_gallery(config, workspace, dataset),
        training=page.training_picture(read_losses(workspace), config.methods),
        stages=stage_rows(workspace, expected),
        config=shown_config(config),
        versions=versions(workspace, expected),
        notes=_notes(config),
    )


def expected_stages(config: PipelineConfig, dataset: Dataset) -> list[StageKey]:
    """Every stage that a whole run of `config` has before the report, in its order."""
    jobs = Jobs(config, dataset)
    left_out = jobs.unneeded() | {"report"}
    return [job.key for job in jobs if job.stage.name not in left_out]


def _list_of(kind: ScoreKind, config: PipelineConfig) -> str:
    """The list of images that a score is of."""
    return config.data.score_list if kind.metric == "score" else config.data.val_list


def _about(name: str, config: PipelineConfig) -> str:
    """What a method is: the first paragraph of its module's documentation."""
    module = sys.modules[type(build_method(name, config.front_door)).__module__]
    return " ".join((module.__doc__ or "").split("\n\n")[0].split())


def _facts(config: PipelineConfig, dataset: Dataset) -> list[tuple[str, str]]:
    data = config.data
    trained_on = len(dataset.ids(data.train_list))
    return [
        ("Dataset", data.kind),
        ("Classes", str(len(dataset.classes))),
        ("Trained on", f"{data.train_list}, {counted(trained_on, 'image')}"),
        ("Seeds and pseudo masks scored on", data.score_list),
        ("Segmenter scored on", data.val_list),
        ("Classifier", config.classifier.backbone),
        ("Segmenter", config.segmenter.backbone),
        ("Random seed", str(config.seed)),
    ]


def _notes(config: PipelineConfig) -> list[str]:
    if config.front_door.pooling == "mean" and config.front_door.probability == "logit":
        return []
    return [
        "The gradient curves are those of Eq. 7 and 8, which hold for mean pooling of logits. "
        f"This run used pooling {config.front_door.pooling} and probability "
        f"{config.front_door.probability}."
    ]


def _global_cams(workspace: Workspace, dataset: Dataset) -> tuple[list[page.GlobalCam], float]:
    path = workspace.folder("global_cam") / "global_cam.safetensors"
    if not path.exists():
        return [], 0.0
    tensors = read_tensors(path)
    return page.global_cams(tensors["global_cam"], tensors["count"], dataset.classes)


def _gallery(config: PipelineConfig, workspace: Workspace, dataset: Dataset) -> Gallery:
    """Of the images of the score list that the last per-image stages have reached."""
    ids = [
        image_id
        for image_id in dataset.ids(config.data.score_list)
        if _has_pictures(workspace, config.methods, image_id)
    ]
    chosen = choose_images(dataset, ids, config.report.gallery)
    return build_gallery(workspace, dataset, config.methods, chosen)


def _has_pictures(workspace: Workspace, methods: tuple[str, ...], image_id: str) -> bool:
    return any(
        (workspace.folder("cam", method) / f"{image_id}.safetensors").exists()
        or (workspace.folder("pseudo_masks", method) / f"{image_id}.png").exists()
        for method in methods
    )
