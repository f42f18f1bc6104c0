"""The dataset checker names every fault once, and nothing else."""

import numpy as np
import pytest
from data.files import save_mask, write_voc
from PIL import Image

from c2am import cli
from c2am.config import DataConfig
from c2am.data import VOC_CLASSES
from c2am.data.check import check_dataset

LISTS = {"train": ["t1", "t2", "t3"], "val": ["v1"]}


@pytest.fixture
def root(tmp_path):
    write_voc(tmp_path / "VOC2012", LISTS, ["dog"])
    return tmp_path / "VOC2012"


def check(root, **options) -> list[str]:
    defaults = {"kind": "voc", "train_list": "train"}
    config = DataConfig(root=str(root), **(defaults | options))
    return [str(problem) for problem in check_dataset(config)]


def test_a_whole_dataset_has_no_problems(root):
    assert check(root) == []


def damage_image(root):
    path = root / "JPEGImages" / "t1.jpg"
    path.write_bytes(path.read_bytes()[:-50])


def empty_image(root):
    (root / "JPEGImages" / "t1.jpg").write_bytes(b"")


def lose_image(root):
    (root / "JPEGImages" / "t1.jpg").unlink()


def lose_annotation(root):
    (root / "Annotations" / "t1.xml").unlink()


def mislabel(root):
    text = "<annotation><object><name>unicorn</name></object></annotation>"
    (root / "Annotations" / "t1.xml").write_text(text)


def unlabel(root):
    (root / "Annotations" / "t1.xml").write_text("<annotation/>")


def resize_mask(root):
    save_mask(root / "SegmentationClass" / "t1.png", np.zeros((30, 20), np.uint8))


def overfill_mask(root):
    save_mask(root / "SegmentationClass" / "t1.png", np.full((20, 30), 77, np.uint8))


def damage_mask(root):
    (root / "SegmentationClass" / "t1.png").write_bytes(b"\x89PNG")


def lose_mask(root):
    (root / "SegmentationClass" / "t1.png").unlink()


def contradict_labels(root):
    value = VOC_CLASSES.index("cat") + 1
    save_mask(root / "SegmentationClass" / "t1.png", np.full((20, 30), value, np.uint8))


def list_missing_image(root):
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("v1\ngone\n")


def list_bad_ids(root):
    text = "v1\n../t1\nv1\na/b\ngone\n"
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text(text)


def repeat_class(root):
    (root / "classes.txt").write_text("dog\ncat\ndog\n")
    damage_image(root)
    lose_annotation(root)


def damage_classes(root):
    (root / "classes.txt").write_bytes(b"\xff\xfe\x00\xd8")


FAULTS = [
    (
        repeat_class,
        [
            "error: {root}/classes.txt: expected 1 to 254 class names, one a line, each once",
            "error: {root}/JPEGImages/t1.jpg: cannot be read",
            "error: {root}/Annotations/t1.xml: cannot be read",
        ],
    ),
    (damage_classes, ["error: {root}/classes.txt: cannot be read"]),
    (damage_image, ["error: {root}/JPEGImages/t1.jpg: cannot be read"]),
    (empty_image, ["error: {root}/JPEGImages/t1.jpg: not an image file"]),
    (lose_image, ["error: {root}/JPEGImages/t1.jpg: no such file"]),
    (lose_annotation, ["error: {root}/Annotations/t1.xml: cannot be read"]),
    (mislabel, ["error: {root}/Annotations/t1.xml: 'unicorn' is none of the classes"]),
    (unlabel, ["warning: image 't1': no class"]),
    (resize_mask, ["error: {root}/SegmentationClass/t1.png: the mask is 30 x 20"]),
    (overfill_mask, ["error: {root}/SegmentationClass/t1.png: values 77: expected 0 to 20"]),
    (damage_mask, ["error: {root}/SegmentationClass/t1.png: cannot be read"]),
    (lose_mask, ["warning: list 'train': no mask of the image 't1'"]),
    (contradict_labels, ["warning: {root}/SegmentationClass/t1.png: shows 'cat'"]),
    (
        list_missing_image,
        [
            "warning: list 'val': no mask of the image 'gone'",
            "error: {root}/JPEGImages/gone.jpg: no such file",
            "error: {root}/Annotations/gone.xml: cannot be read",
        ],
    ),
    (
        list_bad_ids,
        [
            "error: {root}/ImageSets/Segmentation/val.txt: '../t1' is not an image id",
            "error: {root}/ImageSets/Segmentation/val.txt: image id 'v1' stands in it more than",
            "error: {root}/ImageSets/Segmentation/val.txt: 'a/b' is not an image id",
            "warning: list 'val': no mask of the image 'gone'",
            "error: {root}/JPEGImages/gone.jpg: no such file",
            "error: {root}/Annotations/gone.xml: cannot be read",
        ],
    ),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_each_fault_is_named_and_nothing_else(root, fault, expected):
    fault(root)
    found = check(root)
    assert len(found) == len(expected)
    for message, start in zip(found, expected, strict=True):
        assert message.startswith(start.format(root=root))


def test_train_aug_must_have_its_size(root):
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("t1\nt2\n")
    assert check(root, train_list="train_aug") == [
        "error: list 'train_aug': 2 images: VOC train + SBD train + SBD val - VOC val are 10,582"
    ]


def test_images_of_val_in_the_training_list_are_said(root):
    (root / "ImageSets" / "Segmentation" / "mine.txt").write_text("t1\nv1\n")
    assert check(root, train_list="mine") == [
        "warning: list 'mine': has 1 image of the list 'val', such as v1"
    ]


def test_a_missing_folder_is_said_once(root):
    for path in (root / "Annotations").iterdir():
        path.unlink()
    (root / "Annotations").rmdir()
    (message,) = check(root)
    assert message.startswith(f"error: {root}/Annotations: no such folder")
    assert "VOCtrainval_11-May-2012.tar" in message


def test_images_of_the_test_list_need_no_labels(root):
    Image.new("RGB", (9, 9)).save(root / "JPEGImages" / "x1.jpg")
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("x1\n")
    assert check(root, test_list="test") == []
    assert check(root, score_list="test")[-1].startswith(f"error: {root}/Annotations/x1.xml")


def test_a_folder_with_a_table(tmp_path):
    (tmp_path / "labels.csv").write_text("image_id,labels\na,dog\nb,\ngone,cat\n")
    for name in ("a", "b", "stray"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    found = check(tmp_path, kind="folder")
    assert found == [
        "warning: list 'train': no image has a mask, so nothing is scored on it",
        "warning: list 'val': no image has a mask, so nothing is scored on it",
        f"warning: {tmp_path}/stray.png: stands in no row of the labels and is not used",
        "warning: image 'b': no class, so it gets no class map",
        found[4],
    ]
    assert found[4].startswith(f"error: {tmp_path}: no image of id 'gone'")


def test_bad_rows_of_a_table_are_all_named_and_the_others_are_checked(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("image_id,labels\na,dog\n../b,cat\na,unicorn\nb\ngone,dog\n")
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    errors = [text for text in check(tmp_path, kind="folder") if text.startswith("error")]
    assert errors == [
        f"error: {table}: the row 'b' has 1 field, the header 2",
        f"error: {table}: '../b' is not an image id (a plain name is expected)",
        f"error: {table}: image id 'a' stands in it more than once",
        f"error: {tmp_path}/a.png: the image id 'a' belongs to {tmp_path}/a.jpg too",
        errors[4],
    ]
    assert errors[4].startswith(f"error: {tmp_path}: no image of id 'gone'")


def test_what_follows_from_a_bad_row_is_not_said_again(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("image_id,labels,split\na,dog,train\nb,cat;bird\nsub/c.png,cat,val\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a", "b", "sub/c", "stray"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    save_mask(tmp_path / "masks" / "a.png", np.full((9, 9), 3, np.uint8))  # dog, after bird and cat
    assert check(tmp_path, kind="folder") == [
        f"error: {table}: the row 'b,cat;bird' has 2 fields, the header 3",
        f"error: {table}: 'sub/c.png' is not an image id (a plain name is expected)",
        f"warning: {tmp_path}/stray.png: stands in no row of the labels and is not used",
    ]
    table.write_text("image_id,labels\na\n")
    (message,) = [text for text in check(tmp_path, kind="folder") if text.startswith("error")]
    assert message == f"error: {table}: the row 'a' has 1 field, the header 2"


def test_an_id_with_its_extension_is_said_once(tmp_path):
    (tmp_path / "labels.csv").write_text("image_id,labels\na.png,dog\n")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (message,) = [text for text in check(tmp_path, kind="folder") if "a.png" in text]
    assert message.startswith(f"error: {tmp_path}: no image of id 'a.png' (the file name without")


def test_an_image_whose_row_is_bad_does_not_lack_one_too(root, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("image_id,labels\nt1\nt2,dog\nv1,dog\n")
    assert check(root, labels=str(table)) == [
        f"error: {table}: the row 't1' has 1 field, the header 2",
        f"error: {table}: no row for the image 't3'",
    ]


def test_bad_ids_of_lists_that_train_aug_is_derived_from_are_named_once(root, tmp_path):
    sbd = tmp_path / "sbd"
    sbd.mkdir()
    (sbd / "train.txt").write_text("t1\n../s\n")
    (sbd / "val.txt").write_text("t2\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("v1\n../v\n")
    with pytest.warns(UserWarning, match="train_aug has 3 images"):
        found = check(root, train_list="train_aug", sbd=str(sbd))
    assert [text.split(": ", 1)[1].split(" is not")[0] for text in found] == [
        f"{sbd}/train.txt: '../s'",
        f"{root}/ImageSets/Segmentation/val.txt: '../v'",
        "list 'train_aug': 3 images: VOC train + SBD train + SBD val - VOC val are 10,582",
    ]


def test_an_image_without_mask_is_said_once_for_all_lists(tmp_path):
    (tmp_path / "labels.csv").write_text("image_id,labels\na,dog\nb,cat\n")
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    save_mask(tmp_path / "masks" / "a.png", np.zeros((9, 9), np.uint8))
    assert check(tmp_path, kind="folder") == [
        "warning: lists 'train' and 'val': no mask of the image 'b'"
    ]


def test_the_command_says_where_things_come_from(root, capsys):
    arguments = ["data", "check", str(root), "--train-list", "train"]
    assert cli.main(arguments) == 0
    assert f"{root}: 0 errors, 0 warnings" in capsys.readouterr().out
    assert cli.main(["data", "check", str(root)]) == 1
    said = capsys.readouterr().out
    for text in (
        "train_aug.txt: no such file",
        "benchmark.tgz",
        "VOCtrainval",
        ": 1 error, 0 warnings",
    ):
        assert text in said
    assert cli.main(["data", "check", str(root / "nowhere"), "--kind", "folder"]) == 1
    assert "labels.csv: cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--data.val_list", "test"], ["--val-list", "test"]])
def test_the_command_takes_the_lists_of_the_training(tmp_path, options, capsys):
    last = "test" if options else "val"
    text = f"image_id,labels,split\na,dog,train\nb,cat,{last}\n"
    (tmp_path / "labels.csv").write_text(text)
    for name in ("a", "b"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    assert cli.main(["data", "check", str(tmp_path), "--kind", "folder", *options]) == 0
    assert f"list {last!r}: no image has a mask" in capsys.readouterr().out


def test_the_real_voc_has_no_errors(voc_root):
    lists = {"train_list": "val", "score_list": "val", "threads": 2}
    found = [text for text in check(voc_root, **lists) if text.startswith("error")]
    assert found == []
