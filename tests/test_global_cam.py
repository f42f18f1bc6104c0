"""GlobalCamAccumulator: parts make the whole."""

import textwrap

import pytest
import torch
from test_distributed import torchrun

from c2am.global_cam import GlobalCamAccumulator
from c2am.workspace import read_tensors, write_tensors


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Maps of several sizes with their classes; class 3 has none, a map is all zero."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, 6, 7), (3, 9, 4), (0, 5, 5), (4, 1, 8)]
    cams = [torch.rand(*size, generator=generator) * 9 for size in sizes]
    cams[0][2] = 0
    return [(cam, torch.randint(0, 3, (len(cam),), generator=generator)) for cam in cams]


def accumulated(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> GlobalCamAccumulator:
    accumulator = GlobalCamAccumulator(4, 5)
    for cam, class_index in parts:
        accumulator.update(cam, class_index)
    return accumulator


def assert_same(left: GlobalCamAccumulator, right: GlobalCamAccumulator) -> None:
    assert left.total.equal(right.total)
    assert left.count.equal(right.count)


def test_means_of_the_classes():
    accumulator = accumulated(batches())
    assert accumulator.count.sum() == 11
    assert accumulator.count[3] == 0
    global_cam = accumulator.global_cam()
    assert global_cam.dtype == torch.float32
    assert 0 < global_cam[:3].min() <= global_cam.max() <= 1
    assert not global_cam[3].any()
    torch.testing.assert_close(
        global_cam[:3].double() * accumulator.count[:3, None, None], accumulator.total[:3]
    )


def test_parts_merge_to_the_whole():
    whole, first, second = (accumulated(p) for p in (batches(), batches()[:1], batches()[1:]))
    second.merge(first)
    assert_same(second, whole)
    assert_same(first, accumulated(batches()[:1]))


def test_state_goes_through_a_file(tmp_path):
    whole, half = accumulated(batches()), accumulated(batches()[:2])
    write_tensors(tmp_path / "state.safetensors", half.state_dict())
    again = accumulated(batches()[3:])
    again.load_state_dict(read_tensors(tmp_path / "state.safetensors"))
    for cam, class_index in batches()[2:]:
        again.update(cam, class_index)
    assert_same(again, whole)


@pytest.mark.parametrize("other", [GlobalCamAccumulator(4, 6), GlobalCamAccumulator(1, 5)])
def test_other_shapes_are_refused(other):
    accumulator = accumulated(batches())
    with pytest.raises(ValueError, match="GlobalCamAccumulator: the state is"):
        accumulator.merge(other)
    with pytest.raises(ValueError, match="GlobalCamAccumulator: the state is"):
        accumulator.load_state_dict(other.state_dict())
    assert_same(accumulator, accumulated(batches()))


def test_two_ranks_have_what_one_has(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            from test_global_cam import accumulated, assert_same, batches
            from c2am import distributed

            with distributed.session("cpu"):
                assert distributed.world_size() == 2
                part = accumulated(distributed.shard(batches()))
                part.all_reduce()
                assert_same(part, accumulated(batches()))
            """
        )
    )
    done = torchrun(2, script)
    assert done.returncode == 0, done.stderr
