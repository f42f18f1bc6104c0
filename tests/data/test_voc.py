"""VOCdevkits: drawn ones, and the real one where it is."""

import re

import numpy as np
import pytest
from data.files import write_voc

from c2am.config import DataConfig
from c2am.data import VOC_CLASSES, DataError, VocDataset, open_dataset, read_mask, voc_palette
from c2am.data.voc import read_annotation

LISTS = {"train": ["t1", "t2"], "val": ["v1", "v2"]}


@pytest.fixture
def root(tmp_path):
    write_voc(tmp_path / "VOC2012", LISTS, ["person", "dog", "dog"])
    return tmp_path / "VOC2012"


@pytest.fixture
def sbd(tmp_path):
    """Lists that overlap those of VOC, as SBD's do."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.txt").write_text("t2\ns3\nv1\n")
    (folder / "val.txt").write_text("s1\nv2\ns3\n")
    return folder


def test_labels_are_those_of_the_annotation(root):
    labels = VocDataset(root).labels("t1")
    assert [VOC_CLASSES[index] for index in np.flatnonzero(labels)] == ["dog", "person"]
    assert labels.dtype == bool
    assert labels.shape == (20,)


def test_labels_come_from_the_csv_where_there_is_one(root, tmp_path):
    (tmp_path / "labels.csv").write_text("image_id,labels\nt1,cat\nt2,\n")
    config = DataConfig(root=str(root), labels=str(tmp_path / "labels.csv"))
    dataset = open_dataset(config, tmp_path)
    assert np.flatnonzero(dataset.labels("t1")).tolist() == [VOC_CLASSES.index("cat")]
    assert not dataset.labels("t2").any()
    with pytest.raises(DataError, match=r"labels\.csv: no row for the image 'v1'"):
        dataset.labels("v1")


def test_train_aug_is_derived_from_the_lists(root, sbd):
    with pytest.warns(UserWarning, match="train_aug has 4 images, 10,582 were expected"):
        assert VocDataset(root, sbd=sbd).ids("train_aug") == ["s1", "s3", "t1", "t2"]


def test_a_list_of_train_aug_is_preferred(root, sbd):
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("t2\n")
    assert VocDataset(root, sbd=sbd).ids("train_aug") == ["t2"]


def test_without_sbd_the_error_says_what_to_do(root):
    with pytest.raises(DataError) as caught:
        VocDataset(root).ids("train_aug")
    for text in ("train_aug.txt", "benchmark.tgz", "--data.sbd", "--data.train_list train"):
        assert text in str(caught.value)
    with pytest.raises(DataError, match=r"nowhere/train\.txt: no such file"):
        VocDataset(root, sbd=root / "nowhere").ids("train_aug")


def test_a_missing_list_names_those_there_are_and_their_source(root):
    with pytest.raises(
        DataError, match=r"test\.txt: no such list; lists found: train, val"
    ) as caught:
        VocDataset(root).ids("test")
    assert "VOCtrainval_11-May-2012.tar" in str(caught.value)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"JPEGImages: no such folder.*VOCtrainval_11-May-2012"):
        VocDataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t1\n../t2\n", "'../t2' is not an image id"),
        ("t1\n/etc/passwd\n", "'/etc/passwd' is not an image id"),
        ("t1\nt\x00\n", "is not an image id"),
        ("t1\n..\\t2\n", "is not an image id"),
        ("t1\nt2\nt1\n", "'t1' stands in it more than once"),
        ("\n \n", "the list is empty"),
    ],
)
def test_bad_lists_are_refused_and_named(root, text, message):
    path = root / "ImageSets" / "Segmentation" / "bad.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        VocDataset(root).ids("bad")
    assert message in str(caught.value)


def test_a_name_of_a_list_is_no_path(root):
    with pytest.raises(DataError, match="is not an image id"):
        VocDataset(root).ids("../Main/train")


BOMB = """<!DOCTYPE annotation [<!ENTITY a "dog"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""
FILE = """<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<annotation><object><name>&a;</name></object></annotation>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "document types are not allowed"),
        (FILE, "document types are not allowed"),
        ("<annotation><object>", "not a VOC annotation"),
        ("", "not a VOC annotation"),
    ],
    ids=["bomb", "file", "cut", "empty"],
)
def test_bad_annotations_are_refused_and_named(tmp_path, text, message):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        read_annotation(path)
    assert message in str(caught.value)


def test_parts_of_objects_are_no_objects(tmp_path):
    part = "<part><name>head</name></part>"
    text = f"<annotation><object><name>person</name>{part}</object></annotation>"
    (tmp_path / "a.xml").write_text(text)
    assert read_annotation(tmp_path / "a.xml") == ["person"]


def test_an_unknown_class_is_named(root):
    path = root / "Annotations" / "t1.xml"
    path.write_text("<annotation><object><name>unicorn</name></object></annotation>")
    with pytest.raises(DataError, match=r"t1\.xml: 'unicorn' is none of the classes: aeroplane"):
        VocDataset(root).labels("t1")
    (root / "classes.txt").write_text("unicorn\ndog\n")
    assert VocDataset(root).labels("t1").tolist() == [True, False]


@pytest.mark.parametrize(
    ("names", "found"),
    [([], "0"), (["a", "b", "a"], "'a' more than once"), ([f"c{i}" for i in range(255)], "255")],
)
def test_bad_class_names_are_refused(root, names, found):
    (root / "classes.txt").write_text("\n".join(names))
    with pytest.raises(DataError, match=rf"classes\.txt: expected 1 to 254.*: {found}$"):
        VocDataset(root)


def test_a_missing_annotation_is_named(root):
    (root / "Annotations" / "t1.xml").unlink()
    with pytest.raises(DataError, match=r"t1\.xml: cannot be read"):
        VocDataset(root).labels("t1")


def test_masks_of_the_larger_set_come_first(root):
    dataset = VocDataset(root)
    assert dataset.mask_path("t1") == root / "SegmentationClass" / "t1.png"
    (root / "SegmentationClassAug").mkdir()
    (root / "SegmentationClassAug" / "t1.png").write_bytes(b"")
    assert dataset.mask_path("t1") == root / "SegmentationClassAug" / "t1.png"
    assert dataset.mask_path("nothing") is None


def test_the_palette_is_vocs():
    palette = voc_palette()
    assert palette[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_real_voc(voc_root):
    dataset = VocDataset(voc_root)
    assert len(dataset.classes) == 20
    train, val = dataset.ids("train"), dataset.ids("val")
    # The whole devkit, or the part of it that has been published as a small set.
    assert (len(train), len(val)) in [(1464, 1449), (528, 511)]
    assert not set(train) & set(val)
    assert dataset.size("2007_000068") == (375, 500)
    assert np.flatnonzero(dataset.labels("2007_000068")).tolist() == [VOC_CLASSES.index("bird")]
    values = np.unique(read_mask(dataset.mask_path("2007_000068"))).tolist()
    assert values == [0, VOC_CLASSES.index("bird") + 1, 255]
