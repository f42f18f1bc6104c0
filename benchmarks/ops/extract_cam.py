"""Two 375 x 500 images and their mirrors at output stride 16; on a GPU 16 images.

At the resolution of the features, as stage `cam` calls it, strided by 4, and at full resolution;
features as convolutions leave them, on a GPU float32 in their plain layout and bfloat16 in channels
last alone. In the latter, as stage `cam` calls it, also at the other scales of VOC.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from benchmarks.ops import compiled, providers
from benchmarks.runner import Case, Work, best_device
from c2am.ops import extract_cam

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
SCALE_1 = (24, 32)
OTHER_SCALES = ((12, 16), (36, 47), (47, 63))  # 0.5, 1.5 and 2


def cases() -> Iterator[Case]:
    device = best_device()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 2048, generator=generator).to(device)
    images = 16 if device.type == "cuda" else 2
    planar = torch.rand(2 * images, 2048, *SCALE_1, generator=generator).to(device)
    kinds = list(product((torch.float32, torch.bfloat16), LAYOUTS))
    if device.type == "cuda":
        kinds = [kinds[0], kinds[-1]]
    for dtype, layout in kinds:
        sizes = (SCALE_1, (94, 125), (375, 500))
        yield from _of_layout(planar.to(dtype), weight, layout, sizes)
    for size in OTHER_SCALES:
        planar = torch.rand(2 * images, 2048, *size, generator=generator).to(device)
        yield from _of_layout(planar.bfloat16(), weight, "NHWC", (size,))


def _of_layout(
    planar: torch.Tensor, weight: torch.Tensor, layout: str, sizes: tuple[tuple[int, int], ...]
) -> Iterator[Case]:
    images = len(planar) // 2
    features = planar.contiguous(memory_format=LAYOUTS[layout]).unflatten(0, (images, 2))
    height, width = planar.shape[2:]
    dtype = str(planar.dtype).removeprefix("torch.")
    for count, size in enumerate(sizes, start=1):
        present = torch.zeros(images, 20, dtype=torch.bool)  # on the CPU, as the loader gives it
        present[:, :count] = True
        call = partial(extract_cam, features, weight, present, size)
        shape = f"{images}x2x2048x{height}x{width} {layout} {dtype}"
        work = partial(_work, features, images * count, size)
        pairs = present.to(planar.device).nonzero(as_tuple=True)
        yield Case(
            f"{shape}, {count} to {size[0]}x{size[1]}",
            providers("extract_cam", call, planar.device)
            | compiled(_plain, features, weight, *pairs, size),
            work={"native": work, "triton": work},
        )


def _plain(
    features: torch.Tensor,
    weight: torch.Tensor,
    image: torch.Tensor,
    label: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """What compiles into one graph: the maps of all classes, of which those of `label` are taken.

    Which (image, label) there are is known beforehand, so the host waits for nothing.
    """
    maps = torch.einsum("zc,bvchw->bvzhw", weight, features.to(weight.dtype)).relu()
    cam = (maps[:, 0] + maps[:, 1].flip(-1))[image, label]
    return torch.nn.functional.interpolate(cam[None], size, mode="bilinear")[0]


def _work(features: torch.Tensor, maps: int, size: tuple[int, int]) -> Work:
    """The features are read once; maps at their resolution are written, read and resized."""
    channels, height, width = features.shape[2:]
    small, large = maps * height * width, maps * size[0] * size[1]
    products = 2.0 * 2 * maps * channels * height * width  # of both views
    return Work(
        bytes=features.numel() * features.element_size() + 4.0 * (2 * small + large),
        flops=products + 9.0 * large,
    )
