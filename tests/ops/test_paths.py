"""The geometry of pixel pairs and their paths."""

import math

import pytest
import torch

from c2am import ops
from c2am.ops import paths

RADII = [1.5, 2, 3.2, 5, 10]


@pytest.mark.parametrize(("radius", "count"), [(1.5, 4), (2, 4), (3, 12), (5, 34), (10, 152)])
def test_number_of_displacements(radius: float, count: int) -> None:
    assert len(ops.path_offsets(radius)) == count


@pytest.mark.parametrize("radius", RADII)
def test_every_neighbour_is_met_once(radius: float) -> None:
    met = [(p.dy, p.dx) for p in ops.path_offsets(radius)]
    both = met + [(-dy, -dx) for dy, dx in met]
    reach = range(-math.ceil(radius), math.ceil(radius) + 1)
    disc = {(y, x) for y in reach for x in reach if 0 < math.hypot(y, x) < radius}
    assert len(both) == len(set(both))
    assert set(both) == disc


@pytest.mark.parametrize("radius", RADII)
def test_path_holds_the_pixels_near_the_segment(radius: float) -> None:
    for dy, dx, pixels in ops.path_offsets(radius):
        length = math.hypot(dy, dx)
        near = set()
        for y in range(0, dy + 1):
            for x in range(min(0, dx), max(0, dx) + 1):
                along = (y * dy + x * dx) / length
                foot = (along * dy / length, along * dx / length)
                if math.dist((y, x), foot) < 1 - 1e-9:
                    near.add((y, x))
        assert set(pixels) == near
        assert len(pixels) == len(near)
        assert pixels[0] == (0, 0)
        assert pixels[-1] == (dy, dx)


def test_straight_and_diagonal_paths() -> None:
    by_end = {(p.dy, p.dx): p.pixels for p in ops.path_offsets(5)}
    assert by_end[0, 3] == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert by_end[1, 1] == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert (2, 0) not in by_end[2, 2]


@pytest.mark.parametrize("radius", [1, 0, -3, float("nan"), float("inf")])
def test_radius_out_of_range(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        ops.path_offsets(radius)


@pytest.mark.parametrize(
    ("size", "radius", "interior"),
    [((63, 100), 5, (59, 92)), ((9, 19), 10, (0, 1)), ((1, 1), 5, (0, 0)), ((7, 3), 1.5, (6, 1))],
)
def test_interior(size: tuple[int, int], radius: float, interior: tuple[int, int]) -> None:
    assert paths.interior_size(*size, radius) == interior
    assert paths.shifted(torch.zeros(size), 0, 0, radius).shape == interior


@pytest.mark.parametrize("radius", [2, 5])
def test_shifted_reads_the_pixel_at_the_offset(radius: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(17), indexing="ij")
    r = paths.interior_margin(radius)
    for path in ops.path_offsets(radius):
        for y, x in path.pixels:
            assert paths.shifted(rows, y, x, radius)[0, 0] == y
            assert paths.shifted(columns, y, x, radius)[0, 0] == r + x
