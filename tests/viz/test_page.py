"""The report of a small run on disk, parsed as a reader's browser would."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from c2am.config import DataConfig, PipelineConfig
from c2am.events import Events
from c2am.runs import open_run, store_config
from c2am.stages import report
from c2am.stages.context import StageContext
from c2am.viz.summary import duration
from c2am.workspace import Workspace

DASH = "\N{EN DASH}"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects images, ids, links, captions and text; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def make_page(config, workspace, dataset) -> tuple[Page, dict]:
    folder = workspace.folder("report")
    with Events(workspace.events, "report") as events:
        context = StageContext(
            config, workspace, dataset, torch.device("cpu"), None, folder, events
        )
        metrics = report.run(context)
    return Page((folder / "index.html").read_text(encoding="utf-8")), metrics


def test_page_shows_the_numbers_of_the_run_beside_those_of_the_paper(config, workspace, dataset):
    config.data.score_list = "train_aug_x"
    page, metrics = make_page(config, workspace, dataset)
    # Seeds, val seeds and pseudo masks of cam, then of c2am with the gain, then the paper's.
    assert "CAM cam 40.0 38.0 50.0 48.3 65.9 63.5 64.8" in page.text
    assert "C²AM c2am 45.0 +5.0 43.0 +5.0 55.0 +5.0 52.1 69.6 67.5 67.7" in page.text
    assert f"RCA ResNet38 not in this run {DASH} 74.1 72.2 72.8" in page.text
    assert "cam CAM of the baseline classifier as it is" in page.text
    assert "background 80.0 80.0" in page.text
    assert f"cost $5_and$ {DASH} {DASH}" in page.text
    assert "CAM 25.0 12.5 25.0 12.5 25.0 12.5" in page.text
    assert "Seed on train_aug_x Seed, val on val Pseudo mask on train_aug_x" in page.text
    assert "scored. Method Seed Pseudo mask CAM 0.20 0.20" in page.text
    assert "0.1283" in page.text
    assert "classifier all done 0:01:15 3 MiB" in page.text
    assert f"irn cam missing {DASH} {DASH}" in page.text
    assert "torch 2.11.0" in page.text
    assert metrics["stages"] == 6  # classifier, Global CAM; CAMs and masks of two methods


def test_text_from_the_run_is_escaped(config, workspace, dataset):
    page, _ = make_page(config, workspace, dataset)
    assert not {"b", "i", "script"} & set(page.tags)
    assert "<b>dog</b>" in page.text
    assert "<i>run" in page.text
    assert any("<b>dog</b>" in image["alt"] for image in page.images)


def test_every_picture_is_inside_the_page_and_has_a_text(config, workspace, dataset):
    page, _ = make_page(config, workspace, dataset)
    # 3 rows of 6 pictures, 3 Global CAMs; two threshold figures, gradients, losses.
    assert len(page.images) == 18 + 3 + 4
    for image in page.images:
        assert image["alt"]
        kind, data = image["src"].split(";base64,")
        content = base64.b64decode(data, validate=True)
        if kind == "data:image/svg+xml":
            assert content.startswith(b"<svg")
            continue
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
            assert f"data:image/{picture.format.lower()}" == kind
    assert not [link for link in page.values("href") if not link.startswith("#")]


def test_links_lead_to_sections_and_tables_have_captions(config, workspace, dataset):
    page, _ = make_page(config, workspace, dataset)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in page.values("href")} == set(ids)
    assert page.tags.count("caption") == page.tags.count("table") == 6


def test_an_empty_run_says_what_is_missing(config, tmp_path, dataset):
    page, metrics = make_page(config, Workspace(tmp_path / "empty"), dataset)
    assert "This run is not finished." in page.text
    for name in ("classifier", "global_cam", "front_door (c2am)", "predictions (cam, c2am)"):
        assert name in page.text
    assert "front_door (cam" not in page.text  # plain CAM trains nothing there
    assert "No scores" in page.text
    assert not page.images
    assert metrics["stages"] == 0


def test_a_dataset_without_masks_has_a_gallery_and_no_scores(config, workspace, dataset):
    dataset.masks = False
    for stage in ("cam", "pseudo_masks"):
        for method in ("cam", "c2am"):
            workspace.write_manifest(stage, method, {"metrics": {}})
    page, _ = make_page(config, workspace, dataset)
    assert "No scores" in page.text
    assert (
        "Ground truth"
        not in page.text.split("Gallery")[-1].split("Global CAM")[0].split("truth,")[0]
    )
    assert len(page.images) == 15 + 3 + 2


def test_the_gallery_has_as_many_rows_as_asked_for(config, workspace, dataset):
    config.report.gallery = 1
    page, _ = make_page(config, workspace, dataset)
    assert len(page.images) == 6 + 3 + 4


def test_a_run_with_another_pooling_says_that_the_gradients_are_of_mean_pooling(workspace, dataset):
    config = PipelineConfig()
    config.front_door.pooling = "max"
    page, _ = make_page(config, workspace, dataset)
    assert "This run used pooling max and probability logit." in page.text


def test_the_report_is_the_same_when_made_again(config, workspace, dataset):
    make_page(config, workspace, dataset)
    first = (workspace.folder("report") / "index.html").read_bytes()
    make_page(config, workspace, dataset)
    assert (workspace.folder("report") / "index.html").read_bytes() == first


def test_the_page_names_no_folder_of_the_machine(config, workspace, dataset):
    config.data = DataConfig(kind="folder", root="birds", labels="../home/someone/own.csv")
    config.irn.weights, config.workspace = "/home/someone/net.pth", "runs"
    given, _ = make_page(config, workspace, dataset)
    store_config(config, workspace)
    stored, _ = make_page(*open_run(workspace.root), dataset)
    assert stored.text == given.text
    assert "workspace: '.../runs'" in given.text
    assert "root: '.../birds' sbd: null labels: '.../own.csv'" in given.text
    assert "weights: '.../net.pth'" in given.text
    assert "weights: imagenet" in given.text
    assert "someone" not in given.text
    assert str(Path.cwd()) not in given.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5.0 s"), (75, "0:01:15"), (119, "0:01:59"), (7260, "2:01:00")]
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text
