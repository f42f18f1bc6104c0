"""Scores against naive NumPy."""

import numpy as np
import pytest
import torch

from c2am import evaluation
from c2am.evaluation import (
    best_threshold,
    confusion_matrix,
    mask_at_threshold,
    scores,
    sweep_curve,
    sweep_thresholds,
    threshold_sweep,
)

CLASSES = ("cat", "dog", "sofa")
N = len(CLASSES) + 1


def _masks(rng: np.random.Generator, size=(23, 17)) -> tuple[np.ndarray, np.ndarray]:
    prediction = rng.integers(0, N, size, dtype=np.uint8)
    truth = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size)
    return prediction, truth


def _naive_confusion(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    matrix = np.zeros((N, N), np.int64)
    for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
        if t != 255:
            matrix[t, p] += 1
    return matrix


def test_confusion_matrix_counts_pixels_and_skips_void():
    prediction, truth = _masks(np.random.default_rng(0))
    matrix = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(truth), N)
    assert matrix.dtype == torch.int64
    np.testing.assert_array_equal(matrix.numpy(), _naive_confusion(prediction, truth))


def test_confusion_matrix_of_void_alone_is_zero():
    void = torch.full((4, 5), 255, dtype=torch.uint8)
    assert not confusion_matrix(torch.zeros(4, 5, dtype=torch.uint8), void, N).any()


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (torch.zeros(4, 5), torch.zeros(5, 4), r"\(4, 5\), truth \(5, 4\)"),
        (torch.full((2, 2), 4), torch.zeros(2, 2), "prediction holds class 4: expected 0..3"),
        (torch.full((2, 2), 255), torch.zeros(2, 2), "prediction holds class 255"),
        (torch.zeros(2, 2), torch.full((2, 2), 7), "truth holds class 7"),
    ],
)
def test_bad_masks_are_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction.to(torch.uint8), truth.to(torch.uint8), N)


def test_scores_against_numpy():
    matrix = _naive_confusion(*_masks(np.random.default_rng(1)))
    truth, predicted, hits = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    union = truth + predicted - hits
    result = scores(torch.from_numpy(matrix), CLASSES)
    np.testing.assert_allclose(list(result.iou.values()), hits / union)
    assert list(result.iou) == ["background", *CLASSES]
    assert result.miou == pytest.approx(np.mean(hits / union))
    # IRN's form of the rates.
    assert result.false_positive == pytest.approx(np.mean((1 - truth / union)[1:]))
    assert result.false_negative == pytest.approx(np.mean((1 - predicted / union)[1:]))


def test_absent_classes_are_left_out_of_the_mean():
    matrix = torch.zeros(N, N, dtype=torch.int64)
    matrix[0, 0], matrix[1, 1], matrix[1, 0] = 6, 3, 3
    result = scores(matrix, CLASSES)
    assert result.iou == {"background": 6 / 9, "cat": 0.5, "dog": None, "sofa": None}
    assert result.miou == pytest.approx((6 / 9 + 0.5) / 2)
    assert (result.false_positive, result.false_negative) == (0.0, 0.5)


def test_a_class_that_is_only_predicted_counts_zero():
    matrix = torch.zeros(N, N, dtype=torch.int64)
    matrix[0, 0], matrix[0, 2] = 6, 2
    result = scores(matrix, CLASSES)
    assert result.iou["dog"] == 0.0
    assert result.miou == pytest.approx(0.75 / 2)
    assert result.false_positive == 1.0


def test_scores_of_nothing_are_an_error():
    with pytest.raises(ValueError, match="no pixel that is not void"):
        scores(torch.zeros(N, N, dtype=torch.int64), CLASSES)
    with pytest.raises(ValueError, match="expected 4 classes"):
        scores(torch.ones(3, 3, dtype=torch.int64), CLASSES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("classes", [[], [1], [2, 0], [0, 1, 2]], ids=lambda c: f"K{len(c)}")
def test_sweep_equals_a_mask_per_threshold(classes, dtype):
    generator = torch.Generator().manual_seed(len(classes))
    thresholds = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    # Coarse values, so that many are equal to a threshold or to each other.
    maps = (torch.rand(len(classes), 31, 19, generator=generator) * 20).round() / 20
    truth = torch.from_numpy(_masks(np.random.default_rng(2), (31, 19))[1])
    index = torch.tensor(classes, dtype=torch.int64)
    swept = threshold_sweep(maps.to(dtype), index, truth, thresholds, N)
    assert swept.shape == (len(thresholds), N, N)
    for threshold, matrix in zip(thresholds, swept, strict=True):
        mask = mask_at_threshold(maps.to(dtype), index, threshold)
        np.testing.assert_array_equal(matrix.numpy(), _naive_confusion(mask.numpy(), truth.numpy()))


def test_mask_is_the_arg_max_over_threshold_and_maps():
    rng = np.random.default_rng(3)
    maps, classes, threshold = rng.random((2, 9, 7), np.float32), np.array([2, 0]), 0.6
    stacked = np.concatenate([np.full((1, 9, 7), threshold, np.float32), maps])
    expected = np.concatenate([[0], classes + 1])[stacked.argmax(0)]
    mask = mask_at_threshold(torch.from_numpy(maps), torch.from_numpy(classes), threshold)
    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(mask.numpy(), expected)
    assert set(np.unique(expected)) == {0, 1, 3}


def test_a_map_equal_to_the_threshold_is_background():
    maps = torch.full((1, 2, 2), 0.5)
    assert not mask_at_threshold(maps, torch.tensor([0]), 0.5).any()
    assert mask_at_threshold(maps, torch.tensor([0]), 0.49).all()


def test_sweep_refuses_maps_of_another_size():
    maps, truth = torch.rand(1, 4, 4), torch.zeros(4, 5, dtype=torch.uint8)
    with pytest.raises(ValueError, match="differ in size"):
        threshold_sweep(maps, torch.tensor([0]), truth, [0.5], N)
    with pytest.raises(ValueError, match="maps and classes"):
        threshold_sweep(maps, torch.tensor([0, 1]), truth, [0.5], N)


def test_curve_and_its_best_threshold():
    truth = torch.zeros(10, 10, dtype=torch.uint8)
    truth[2:6, 2:6] = 1
    maps = torch.full((1, 10, 10), 0.3)
    maps[0, 2:6, 2:6] = 0.8
    thresholds = sweep_thresholds(0.1, 0.9, 0.1)
    swept = threshold_sweep(maps, torch.tensor([0]), truth, thresholds, N)
    curve = sweep_curve(swept, thresholds, CLASSES)
    assert best_threshold(curve) == 0.3
    assert dict(map(tuple, curve))[0.5] == 1.0
    assert dict(map(tuple, curve))[0.2] == pytest.approx(0.16 / 2)


def test_sweep_thresholds_hold_both_ends():
    assert sweep_thresholds(0.02, 0.6, 0.02)[-1] == 0.6
    assert len(sweep_thresholds(0.02, 0.6, 0.02)) == 30
    assert sweep_thresholds(0.13, 0.2, 0.01) == [0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2]
    assert sweep_thresholds(0.25, 0.25, 0.1) == [0.25]


def test_reduction_over_ranks_is_a_sum(monkeypatch):
    monkeypatch.setattr(evaluation.distributed, "all_reduce_sum", lambda tensor: 2 * tensor)
    matrix = torch.arange(9).view(3, 3)
    assert torch.equal(evaluation.reduce_confusion(matrix), 2 * matrix)
