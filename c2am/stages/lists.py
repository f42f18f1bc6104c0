"""The images a per-image stage works on: which are left, and which of them are this rank's.

The ranks share the images by their pixels. Those that go through a network are shared as whole
batches, since the last bits of its output depend on what else is in the batch: the batches are
those that `InferenceLoader` makes of the whole list, however many ranks there are and wherever a
run was killed, so the files come out the same.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from c2am import distributed
from c2am.data import Dataset
from c2am.data.loader import buckets
from c2am.stages.context import StageContext

_READING = 0.02  # of the cost of making an image's file


def union(*lists: Iterable[str]) -> list[str]:
    """All ids of the lists, each once, in order of appearance."""
    return list(dict.fromkeys(image_id for ids in lists for image_id in ids))


def own(dataset: Dataset, ids: Sequence[str], made: frozenset[str] = frozenset()) -> list[str]:
    """This rank's images; those that are `made` only have to be read."""

    def cost(image_id: str) -> float:
        return math.prod(dataset.size(image_id)) * (_READING if image_id in made else 1.0)

    return distributed.shard(ids, cost)


def own_batches(dataset: Dataset, ids: Sequence[str], batch_size: int) -> list[str]:
    """This rank's images, whole batches of `InferenceLoader`, which makes the same ones of them."""
    return _flat(distributed.shard(buckets(dataset, ids, batch_size), _cost(dataset)))


def done(context: StageContext, ids: Sequence[str], there: Callable[[str], bool]) -> frozenset[str]:
    """The images whose output is `there`, as the main rank sees it; the same on all ranks.

    The others do not look for themselves: by then a first one may have made new files, and a
    network file system shows them late.
    """
    flags = [int(distributed.is_main() and there(image_id)) for image_id in ids]
    flags = distributed.list_from_main(flags, context.device)
    return frozenset(image_id for image_id, flag in zip(ids, flags, strict=True) if flag)


def pending(context: StageContext, ids: Sequence[str], there: Callable[[str], bool]) -> list[str]:
    """This rank's part of the images whose output is not `there` yet."""
    made = done(context, ids, there)
    return own(context.dataset, [image_id for image_id in ids if image_id not in made])


def pending_batches(
    context: StageContext, ids: Sequence[str], there: Callable[[str], bool], batch_size: int
) -> list[str]:
    """This rank's part of the batches in which an output is not `there` yet, as `own_batches`.

    A batch that is not finished is done again as a whole.
    """
    left = set(ids) - done(context, ids, there)
    if not left:
        return []
    batches = buckets(context.dataset, ids, batch_size)
    again = [batch for batch in batches if not left.isdisjoint(batch)]
    return _flat(distributed.shard(again, _cost(context.dataset)))


def _cost(dataset: Dataset) -> Callable[[list[str]], float]:
    """Pixels of a batch, whose images have one size."""
    return lambda batch: len(batch) * math.prod(dataset.size(batch[0]))


def _flat(batches: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(batches))


def with_mask(dataset: Dataset, ids: Iterable[str]) -> list[str]:
    """The images that can be scored."""
    return [image_id for image_id in ids if dataset.mask_path(image_id) is not None]
