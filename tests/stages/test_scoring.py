"""Scores of lists."""

import warnings

import numpy as np
import pytest
import torch

from c2am.data import DataError
from c2am.stages import scoring
from c2am.stages.class_maps import ClassMaps
from c2am.workspace import write_mask


def test_a_wrong_size_names_the_truth(make_context):
    context = make_context("cam", "cam")
    maps = ClassMaps(torch.tensor([0]), torch.zeros(1, 3, 3))
    with pytest.raises(DataError, match=r"SegmentationClass/train_.*png: masks differ in size"):
        scoring.sweep_list(context, "train", lambda _: maps, "test")


def test_a_list_without_masks_has_no_score(make_context, pictures):
    pictures.add("a", np.zeros((8, 8, 3), np.uint8), [0])
    context = make_context("predictions", "cam", dataset=pictures)
    assert scoring.score_masks(context, "val", lambda _: pytest.fail("not read"), "test") is None


def test_images_without_a_mask_are_left_out(make_context, pictures):
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 2
    pictures.add("a", np.zeros((8, 8, 3), np.uint8), [1], truth)
    pictures.add("b", np.zeros((8, 8, 3), np.uint8), [1])
    context = make_context("predictions", "cam", dataset=pictures)
    write_mask(context.folder / "a.png", truth)
    score = scoring.score_masks(context, "val", lambda i: context.folder / f"{i}.png", "test")
    assert score["miou"] == 1
    assert score["iou"] == {"background": 1, "cat": None, "dog": 1, "sofa": None}


def test_a_list_of_void_alone_is_named(make_context, pictures):
    pictures.add("a", np.zeros((8, 8, 3), np.uint8), [0], np.full((8, 8), 255, np.uint8))
    context = make_context("cam", "cam", dataset=pictures)
    maps = ClassMaps(torch.tensor([0]), torch.zeros(1, 8, 8))
    with pytest.raises(DataError, match="list 'val': every pixel of its masks is void"):
        scoring.sweep_list(context, "val", lambda _: maps, "test")


@pytest.mark.parametrize("best", [0, 2])
def test_a_best_threshold_at_an_end_of_the_sweep_gives_a_warning(make_context, best):
    curve = [[0.1, 0.2], [0.2, 0.2], [0.3, 0.2]]
    curve[best][1] = 0.5
    with pytest.warns(UserWarning, match="widen evaluation.thresholds, now 0.1 to 0.3"):
        assert scoring.choose_threshold(make_context("cam", "cam"), curve) == curve[best][0]


def test_a_best_threshold_within_the_sweep_gives_none(make_context):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = [[0.1, 0.2], [0.2, 0.5], [0.3, 0.2]]
        assert scoring.choose_threshold(make_context("cam", "cam"), curve) == 0.2
