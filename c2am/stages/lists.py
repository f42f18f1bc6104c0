"""The images a per-image stage works on."""

from collections.abc import Iterable
from pathlib import Path

from c2am import distributed
from c2am.data import Dataset
from c2am.data.loader import buckets


def union(*lists: Iterable[str]) -> list[str]:
    """All ids of the lists, each once, in order of appearance."""
    return list(dict.fromkeys(image_id for ids in lists for image_id in ids))


def pending(ids: Iterable[str], folder: Path, suffix: str) -> list[str]:
    """This rank's images whose output `<folder>/<id><suffix>` is not there yet."""
    mine = distributed.shard(list(ids))
    return [image_id for image_id in mine if not (folder / f"{image_id}{suffix}").exists()]


def pending_batches(
    dataset: Dataset, ids: Iterable[str], folder: Path, suffix: str, batch_size: int
) -> list[str]:
    """This rank's images of every batch in which an output is missing.

    The last bits of a network's output depend on what else is in the batch. So that a killed run
    comes to the same files, the batches are those that `InferenceLoader` makes of the whole list,
    and one that is not finished is done again as a whole.
    """
    mine = distributed.shard(list(ids))
    missing = set(pending(ids, folder, suffix))
    if not missing:
        return []
    batches = buckets(dataset, mine, batch_size)
    again = {image_id for batch in batches if not missing.isdisjoint(batch) for image_id in batch}
    return [image_id for image_id in mine if image_id in again]


def with_mask(dataset: Dataset, ids: Iterable[str]) -> list[str]:
    """The images that can be scored."""
    return [image_id for image_id in ids if dataset.mask_path(image_id) is not None]
