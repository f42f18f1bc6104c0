import numpy as np
import pytest
from PIL import Image

from c2am.viz.gallery import build_gallery, choose_images
from c2am.workspace import read_tensors, write_tensors


class Labels:
    """A dataset of labels alone: image id -> class indices."""

    def __init__(self, labels: dict[str, set[int]], count: int) -> None:
        self.table = labels
        self.classes = tuple(f"class{i}" for i in range(count))

    def labels(self, image_id):
        return np.array([index in self.table[image_id] for index in range(len(self.classes))])


def test_images_are_spread_over_the_classes_and_chosen_once():
    dataset = Labels({"a": {0}, "b": {0}, "c": {0, 1}, "d": {2}, "e": set()}, 4)
    ids = list(dataset.table)
    assert choose_images(dataset, ids, 3) == ["a", "c", "d"]
    assert choose_images(dataset, ids, 10) == ["a", "c", "d", "b"]
    assert choose_images(dataset, ids, 0) == []
    assert choose_images(dataset, [], 3) == []


@pytest.mark.parametrize("high_res", [True, False])
def test_gallery_has_a_picture_for_every_file(workspace, dataset, high_res):
    for path in workspace.root.glob("cam/*/*.safetensors"):
        if not high_res:
            write_tensors(path, {"strided": read_tensors(path)["strided"]})
    gallery = build_gallery(workspace, dataset, ["cam", "c2am"], dataset.images)
    assert gallery.columns == [
        "Image",
        "CAM: class map",
        "C²AM: class map",
        "CAM: pseudo mask",
        "C²AM: pseudo mask",
        "Ground truth",
    ]
    assert [row.labels for row in gallery.rows] == [["cat"], ["<b>dog</b>"], ["cost $5_and$"]]
    for row in gallery.rows:
        assert [(picture.height, picture.width) for picture in row.pictures] == [
            dataset.size(row.image_id)
        ] * 6


def test_columns_without_files_are_left_out(workspace, dataset):
    dataset.masks = False
    for image_id in dataset.images:
        (workspace.folder("pseudo_masks", "cam") / f"{image_id}.png").unlink()
    (workspace.folder("cam", "cam") / "first.safetensors").unlink()
    gallery = build_gallery(workspace, dataset, ["cam", "c2am"], dataset.images)
    assert gallery.columns == ["Image", "CAM: class map", "C²AM: class map", "C²AM: pseudo mask"]
    assert gallery.rows[0].pictures[1] is None


def test_a_map_of_another_size_is_refused(workspace, dataset):
    dataset.image_path = lambda image_id: workspace.folder("cam", "cam").parent / "small.png"
    Image.new("RGB", (5, 4)).save(dataset.image_path("first"))
    with pytest.raises(ValueError, match="cam: expected shape"):
        build_gallery(workspace, dataset, ["cam"], ["first"])
