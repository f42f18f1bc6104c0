"""A folder of images and a CSV."""

import re

import numpy as np
import pytest
from data.files import save_mask
from PIL import Image

from c2am.config import DataConfig
from c2am.data import DataError, FolderDataset, open_dataset
from c2am.data.tables import read_label_table

CSV = "image_id,labels,split\nbeach,dog person,train\nstreet,,train\nroom,cat,val\n"


@pytest.fixture
def root(tmp_path):
    """Three images, in the root and below it; one mask."""
    (tmp_path / "labels.csv").write_text(CSV)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "beach.jpg")
    Image.new("RGB", (10, 40)).save(tmp_path / "deep" / "street.PNG")
    Image.new("RGB", (12, 12)).save(tmp_path / "deep" / "er" / "room.webp")
    Image.new("RGB", (12, 12)).save(tmp_path / "deep" / "unknown.jpg")
    save_mask(tmp_path / "masks" / "room.png", np.zeros((12, 12), np.uint8))
    return tmp_path


def test_it_finds_images_labels_lists_and_masks(root):
    dataset = open_dataset(DataConfig(kind="folder", root=str(root)), root)
    assert dataset.classes == ("cat", "dog", "person")
    assert dataset.ids("train") == ["beach", "street"]
    assert dataset.ids("val") == ["room"]
    assert dataset.labels("beach").tolist() == [False, True, True]
    assert dataset.labels("street").tolist() == [False, False, False]
    assert dataset.image_path("street") == root / "deep" / "street.PNG"
    assert [dataset.size(name) for name in ("beach", "street")] == [(20, 30), (40, 10)]
    assert dataset.mask_path("room") == root / "masks" / "room.png"
    assert dataset.mask_path("beach") is None
    assert dataset.unlisted == [root / "deep" / "unknown.jpg"]


def test_without_a_split_column_every_list_holds_all_images(root):
    table = root / "other.csv"
    table.write_text("labels,image_id\ncat,room\n\ndog,beach\n")
    dataset = FolderDataset(root, labels=table)
    assert dataset.ids("train_aug") == dataset.ids("val") == ["room", "beach"]


def test_names_with_spaces_are_separated_by_semicolons(tmp_path):
    (tmp_path / "t.csv").write_text(
        'image_id,labels\na,traffic light; dog\nb,"fire hydrant"\nc, ; \n'
    )
    labels = read_label_table(tmp_path / "t.csv").labels
    assert labels == {"a": ("traffic light", "dog"), "b": ("fire hydrant",), "c": ()}


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfimage_id,labels\r\nb\xc3\xa4r,dog\r\n")
    assert read_label_table(tmp_path / "t.csv").labels == {"bär": ("dog",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,classes\na,dog\n", "columns id,classes: expected image_id,labels"),
        ("image_id,labels,weight\na,dog,1\n", "columns image_id,labels,weight: expected"),
        ("image_id,labels,labels\na,dog,cat\n", "columns image_id,labels,labels: expected"),
        ("", "columns none: expected"),
        ("image_id,labels\n", "no rows"),
        ("image_id,labels\na,dog,cat\n", "the row 'a,dog,cat' has 3 fields, the header 2"),
        ("image_id,labels\na\n", "the row 'a' has 1 field, the header 2"),
        ('"image_id,labels\na,dog\n', "not a CSV"),
        ("image_id,labels\n../../etc/passwd,dog\n", "'../../etc/passwd' is not an image id"),
        ("image_id,labels\n..,dog\n", "'..' is not an image id"),
        ("image_id,labels\n,dog\n", "'' is not an image id"),
        ("image_id,labels\na,dog\na,cat\n", "image id 'a' stands in it more than once"),
        ("image_id,labels\na,\n", "0 classes: expected 1 to 254"),
    ],
)
def test_bad_tables_are_refused_and_named(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        FolderDataset(tmp_path)
    assert message in str(caught.value)


def test_a_table_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        FolderDataset(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        FolderDataset(tmp_path)


def test_an_unknown_list_names_those_there_are(root):
    with pytest.raises(
        DataError, match=r"no image of the list 'train_aug'; lists found: train, val"
    ):
        FolderDataset(root).ids("train_aug")


def test_ids_without_image_or_row(root):
    (root / "beach.jpg").unlink()
    dataset = FolderDataset(root)
    with pytest.raises(DataError, match="no image of id 'beach'"):
        dataset.image_path("beach")
    with pytest.raises(DataError, match="no row for the image 'unknown'"):
        dataset.labels("unknown")


def test_two_images_of_one_id_are_refused(root):
    Image.new("RGB", (5, 5)).save(root / "deep" / "beach.png")
    with pytest.raises(DataError, match="the image id 'beach' belongs to"):
        FolderDataset(root)


def test_images_behind_a_link_are_found_and_a_circle_ends(root):
    elsewhere = root.with_name(f"{root.name}-elsewhere")
    (root / "deep").rename(elsewhere)
    (root / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    dataset = FolderDataset(root)
    assert dataset.image_path("street") == root / "link" / "street.PNG"
    assert dataset.size("room") == (12, 12)


def test_masks_of_a_run_below_the_root_are_not_images(root):
    run = root / "runs" / "mine"
    (run / "pseudo_masks" / "cam").mkdir(parents=True)
    (run / "config.yaml").write_text("name: mine")
    save_mask(run / "pseudo_masks" / "cam" / "beach.png", np.zeros((20, 30), np.uint8))
    dataset = FolderDataset(root)
    assert dataset.image_path("beach") == root / "beach.jpg"
    assert dataset.unlisted == [root / "deep" / "unknown.jpg"]
