"""The stream of training samples."""

from collections import Counter

import numpy as np
import pytest

from c2am.config import TrainConfig
from c2am.data.sampling import _permutation, crop_anchor, rank_part, resized, sample, scaled


def test_a_sample_depends_on_seed_and_number_alone():
    numbers = list(range(40))
    forward = [sample(n, 7, 3, flip=True) for n in numbers]
    _permutation.cache_clear()
    backward = [sample(n, 7, 3, flip=True) for n in reversed(numbers)]
    assert forward == backward[::-1]
    other = [sample(n, 7, 4, flip=True) for n in numbers]
    assert [each.index for each in other] != [each.index for each in forward]
    assert not {each.size_draw for each in other} & {each.size_draw for each in forward}


def test_every_epoch_is_a_permutation_and_none_is_like_another():
    epochs = [tuple(sample(e * 9 + i, 9, 0, flip=True).index for i in range(9)) for e in range(20)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert len(set(epochs)) == 20


def test_draws_are_uniform_and_independent():
    drawn = [sample(n, 5, 1, flip=True) for n in range(2000)]
    values = np.array([(each.size_draw, *each.crop_draw, each.flip) for each in drawn], float)
    assert ((values >= 0) & (values[:, :] <= 1)).all()
    np.testing.assert_allclose(values.mean(0), 0.5, atol=0.04)
    correlation = np.corrcoef(values.T) - np.eye(4)
    assert abs(correlation).max() < 0.08


def test_without_flip_nothing_else_changes():
    for n in range(20):
        flipped, plain = sample(n, 5, 1, flip=True), sample(n, 5, 1, flip=False)
        assert not plain.flip
        assert (plain.index, plain.size_draw, plain.crop_draw) == (
            flipped.index,
            flipped.size_draw,
            flipped.crop_draw,
        )


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 16, 33])
def test_ranks_cover_a_batch_once_and_evenly(batch_size, world_size):
    parts = [rank_part(batch_size, rank, world_size) for rank in range(world_size)]
    assert [place for part in parts for place in part] == list(range(batch_size))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("draw", "size"), [(0.0, (150, 200)), (0.5, (225, 300)), (1.0, (300, 400))]
)
def test_resize_long_sets_the_long_side(draw, size):
    config = TrainConfig(resize_long=(200, 400))
    assert resized((375, 500), draw, config) == size
    assert resized((500, 375), draw, config) == size[::-1]


@pytest.mark.parametrize(("draw", "size"), [(0.0, (50, 100)), (0.5, (100, 200)), (1.0, (150, 300))])
def test_scale_is_a_factor(draw, size):
    assert resized((100, 200), draw, TrainConfig(scale=(0.5, 1.5))) == size


def test_without_either_the_size_stays_and_no_side_gets_lost():
    assert resized((101, 7), 0.7, TrainConfig()) == (101, 7)
    assert scaled((3, 1000), 0.01) == (1, 10)


@pytest.mark.parametrize(("side", "crop", "places"), [(10, 7, [0, 1, 2, 3]), (7, 9, [-2, -1, 0])])
def test_every_crop_position_is_as_likely(side, crop, places):
    """DALI puts a crop at round(anchor * (side - crop))."""
    draws = (np.arange(1200) + 0.5) / 1200
    anchors = [crop_anchor((side, side), crop, (draw, draw)) for draw in draws]
    assert all(0 <= y <= 1 and y == x for y, x in anchors)
    found = Counter(round(y * (side - crop)) for y, _ in anchors)
    assert sorted(found) == places
    assert len(set(found.values())) == 1


def test_a_crop_of_the_images_side_has_one_position():
    assert crop_anchor((9, 12), 9, (0.9, 0.999)) == (0.0, 1.0)
