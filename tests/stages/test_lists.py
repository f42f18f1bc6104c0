"""Which images are left to do, and how the ranks share them."""

import numpy as np
import pytest
import torch

from c2am import distributed
from c2am.global_cam import GlobalCamAccumulator
from c2am.stages import global_cam, lists
from c2am.stages.loaders import inference_loader


@pytest.fixture
def ranks(monkeypatch):
    """`ranks(n, function)`: its results on each of n ranks, the main one first."""

    def call(world_size, function):
        monkeypatch.setattr(distributed, "world_size", lambda: world_size)
        told = []

        def list_from_main(values, device):
            told.append(values) if distributed.is_main() else None
            return told[0]

        monkeypatch.setattr(distributed, "list_from_main", list_from_main)
        results = []
        for rank in range(world_size):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            results.append(function())
        return results

    return call


def loaded(context, ids: list[str], batch_size: int) -> list[list[str]]:
    """The batches that a loader makes; nothing is loaded."""
    return inference_loader(context, ids, None, batch_size=batch_size)._buckets


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_unfinished_batches_are_those_of_the_whole_list(make_context, batch_size):
    context = make_context("cam", "cam")
    ids = context.dataset.ids("train")
    whole = loaded(context, ids, batch_size)
    for missing in ids:
        again = lists.pending_batches(context, ids, lambda i, m=missing: i != m, batch_size)
        assert loaded(context, again, batch_size) == [batch for batch in whole if missing in batch]
    assert lists.pending_batches(context, ids, lambda _: True, batch_size) == []


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_the_ranks_share_whole_batches_by_their_pixels(make_context, pictures, ranks, world_size):
    sides = [8] * 11 + [16] * 5 + [32] * 3
    for index, side in enumerate(sides):
        pictures.add(f"{index}", np.zeros((side, side, 3), np.uint8), [0])
    context = make_context("cam", "cam", dataset=pictures)
    ids = pictures.ids("")
    whole = loaded(context, ids, 2)
    shares = ranks(world_size, lambda: lists.own_batches(pictures, ids, 2))
    split = [batch for share in shares for batch in loaded(context, share, 2)]
    assert sorted(split) == sorted(whole)
    costs = [sum(sides[int(name)] ** 2 for name in share) for share in shares]
    largest = max(len(batch) * sides[int(batch[0])] ** 2 for batch in whole)
    assert max(costs) <= sum(costs) / world_size + largest
    images = ranks(world_size, lambda: lists.own(pictures, ids))
    assert sorted(name for share in images for name in share) == sorted(ids)


def test_the_main_rank_says_what_is_left(make_context, ranks):
    """The others find files that it has made since, or do not find old ones yet."""
    context = make_context("cam", "cam")
    ids = context.dataset.ids("train")

    def there(image_id: str) -> bool:
        return image_id in ids[:3] if distributed.is_main() else image_id in ids[2:6]

    shares = ranks(2, lambda: lists.pending(context, ids, there))
    assert sorted(shares[0] + shares[1]) == sorted(ids[3:])
    batches = ranks(2, lambda: lists.pending_batches(context, ids, there, 1))
    assert sorted(batches[0] + batches[1]) == sorted(ids[3:])


def test_files_that_are_read_are_shared_too(make_context, ranks):
    context = make_context("cam", "cam")
    dataset, ids = context.dataset, context.dataset.ids("train")
    shares = ranks(2, lambda: lists.own(dataset, ids, frozenset(ids)))
    assert all(shares)
    assert sorted(shares[0] + shares[1]) == sorted(ids)


def test_a_sum_of_another_share_of_the_images_is_begun_anew(
    make_context, write_network, pictures, ranks, monkeypatch
):
    """Of a killed pass: by another `cam.batch_size` the ranks share them in another way."""
    for index, side in enumerate([16] * 4 + [24] * 3):
        pictures.add(f"{index}", np.zeros((side, side, 3), np.uint8), [index % 2])
    context = make_context("global_cam", dataset=pictures)
    write_network(context, "classifier")
    calls = []

    def ones(context, method, net, batch):
        calls.append(batch.ids)
        return torch.ones(int(batch.present.sum()), 4, 4)

    def images() -> list[int]:
        sums, rank = GlobalCamAccumulator(3, 12), distributed.rank()
        partial = context.folder / f"partial-{rank}-of-2.safetensors"
        global_cam.accumulate(context, sums, partial)
        return sums.count.tolist()

    monkeypatch.setattr(global_cam, "strided_maps", ones)
    for context.config.cam.batch_size in (2, 3):
        calls.clear()
        for _ in range(2):  # the second pass finds what the first has left
            assert np.sum(ranks(2, images), axis=0).tolist() == [4, 3, 0]
            assert sorted(name for batch in calls for name in batch) == pictures.ids("")


def test_union_keeps_the_order():
    assert lists.union(["b", "a"], ["c", "a"], []) == ["b", "a", "c"]
