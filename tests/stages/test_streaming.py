"""`irn_labels.stream`: labels made in the pass of stage `cam`, from the maps in memory."""

import shutil
from pathlib import Path

import pytest

from c2am.stages import cam, irn_labels
from c2am.workspace import tensor_names


class Both:
    """The two stages on drawn images, of which those that are `scored` have a mask."""

    def __init__(self, make_context, scored: set[str]) -> None:
        self.cam, self.labels = make_context("cam", "cam"), make_context("irn_labels", "cam")
        self.scored, self.train = scored, self.cam.dataset.ids("train")

    def run(self, *, stream: bool) -> tuple[dict, dict]:
        self.cam.config.irn_labels.stream = stream
        return cam.run(self.cam), irn_labels.run(self.labels)

    def maps(self, image_id: str) -> Path:
        return self.cam.folder / f"{image_id}.safetensors"

    def made(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.labels.folder.glob("*.png"))}

    def forget(self) -> None:
        for folder in (self.cam.folder, self.labels.folder):
            shutil.rmtree(folder)
            folder.mkdir()


@pytest.fixture
def both(make_context, write_network, monkeypatch) -> Both:
    both = Both(make_context, set())
    both.scored |= {*both.train[:3], *both.cam.dataset.ids("val")}
    known = both.cam.dataset.mask_path
    monkeypatch.setattr(
        both.cam.dataset, "mask_path", lambda i: known(i) if i in both.scored else None
    )
    write_network(both.cam, "classifier")
    return both


def test_the_labels_are_those_by_way_of_the_disk(both, monkeypatch):
    metrics, labels = both.run(stream=False), both.made()
    written = {image_id: both.maps(image_id).stat().st_size for image_id in both.train}
    both.forget()
    monkeypatch.setattr(irn_labels, "read_class_maps", lambda *_: pytest.fail("from the disk"))
    assert both.run(stream=True) == metrics
    assert both.made() == labels
    for image_id in both.train:
        names = {"classes", "strided"} | ({"high_res"} if image_id in both.scored else set())
        assert tensor_names(both.maps(image_id)) == names
        if image_id not in both.scored:
            assert both.maps(image_id).stat().st_size < written[image_id] / 5
    assert not both.maps(both.cam.dataset.ids("val")[0]).with_suffix(".png").exists()


def test_a_killed_pass_goes_on(both):
    both.run(stream=True)
    labels, last, first = both.made(), both.train[-1], both.train[0]
    before = {path.name: path.read_bytes() for path in both.cam.folder.iterdir()}
    both.maps(last).unlink()  # its labels are there
    for suffix in (".safetensors", ".png"):
        both.maps(first).with_suffix(suffix).unlink()
    shutil.rmtree(both.labels.folder)
    both.run(stream=True)
    assert {path.name: path.read_bytes() for path in both.cam.folder.iterdir()} == before
    assert both.made() == labels


@pytest.mark.parametrize("stream", [False, True])
def test_maps_that_a_score_needs_are_made_again(both, stream):
    both.run(stream=False)
    late = both.train[-1]
    expected, labels = both.maps(late).read_bytes(), both.made()
    both.forget()
    both.run(stream=True)
    assert "high_res" not in tensor_names(both.maps(late))
    both.scored.add(late)
    both.run(stream=stream)
    assert both.maps(late).read_bytes() == expected
    assert both.made() == labels


@pytest.mark.parametrize("stream", [False, True])
def test_the_switch_may_change_in_between(both, stream):
    both.run(stream=False)
    labels = both.made()
    both.forget()
    both.run(stream=stream)
    rest = both.train[-2:]
    for image_id in rest:
        both.maps(image_id).unlink()
        both.maps(image_id).with_suffix(".png").unlink(missing_ok=True)
    shutil.rmtree(both.labels.folder)
    both.run(stream=not stream)
    assert both.made() == labels
    for image_id in rest:
        assert ("high_res" in tensor_names(both.maps(image_id))) == stream
