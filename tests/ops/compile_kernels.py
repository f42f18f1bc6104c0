"""`compile_kernels.py CAPABILITY DTYPE`: the Triton kernels to machine code, without a GPU."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from c2am.kernels import (
    accumulate_global_cam,
    affinity_loss,
    bilinear,
    displacement_loss,
    extract_cam,
    front_door_logits,
    front_door_loss,
    multi_scale_cam,
    normalize_cam,
    path_affinity,
)
from c2am.kernels.tuning import Tuned

CAPABILITY, NARROW = int(sys.argv[1]), sys.argv[2]
WIDE = "fp64" if NARROW == "fp64" else "fp32"
PIXELS = {"block_size": 1024}
TILE = {"row_block": bilinear.ROWS, "column_block": bilinear.COLUMNS}
PAIRS = {"displacements": 152}
TABLES = "visits: i32, pixels: i32"


def compiles(kernel: triton.JITFunction | Tuned, pointers: str, **constants: object) -> None:
    """Compile for the `pointers`, "name: type, ..."; what is neither these nor constant is i32.

    A tuned kernel in its first configuration, in one run of this script in all of them. In another
    run integers are 1 too, which makes them constants, but where the kernel says otherwise.
    """
    if isinstance(kernel, Tuned):
        configs = kernel.configs if (CAPABILITY, NARROW) == (90, "bf16") else kernel.configs[:1]
        for config in configs:
            compiles_with(kernel.kernel, pointers, config, {**constants, **config.kwargs})
    else:
        compiles_with(kernel, pointers, triton.Config({}), constants)


def compiles_with(
    kernel: triton.JITFunction, pointers: str, config: triton.Config, constants: dict[str, object]
) -> None:
    """`compiles` in one configuration."""
    types = {n: "*" + t for n, t in (pair.split(": ") for pair in pointers.split(", "))}
    names = [p.name for p in kernel.params]
    assert types.keys() | constants.keys() <= set(names), kernel
    variants = [constants]
    if (CAPABILITY, NARROW) == (80, "bf16"):
        special = [p.name for p in kernel.params if not p.do_not_specialize]
        variants.append(dict.fromkeys(set(special) - types.keys(), 1) | constants)
    for constant in variants:
        signature = {n: "constexpr" if n in constant else types.get(n, "i32") for n in names}
        values = {(names.index(n),): v for n, v in constant.items()}
        source = ASTSource(kernel, signature, values)
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        target = GPUTarget("cuda", CAPABILITY, 32)
        assert triton.compile(source, target=target, options=options).asm["cubin"]


compiles(normalize_cam._block_maximum, f"cam: {NARROW}, maxima: {WIDE}", **PIXELS)
compiles(
    normalize_cam._divide,
    f"cam: {NARROW}, maxima: {WIDE}, out: {NARROW}",
    eps=1e-5,
    padded_parts=4,
    **PIXELS,
)
compiles(
    accumulate_global_cam._tile_maxima,
    f"cam: {NARROW}, maxima: {WIDE}",
    **TILE,
)
for normalize in (False, True):
    compiles(
        accumulate_global_cam._accumulate,
        f"cam: {NARROW}, maxima: {WIDE}, class_index: i64, total: fp64, count: i64",
        shift=1.5 * 2**22,
        normalize=normalize,
        eps=1e-5,
        padded_tiles=4,
        **TILE,
    )
for pooling in ("mean", "max", "lse"):
    compiles(
        front_door_logits._pool,
        f"p_values: {WIDE}, global_cam: {WIDE}, score: {WIDE}, slope: {WIDE}",
        pixels=1600,
        pooling=pooling,
        **PIXELS,
    )
    compiles(
        front_door_loss._cross_entropy,
        f"logits: {NARROW}, labels: fp32, global_cam: fp32, terms: fp64, finished: i32,"
        f" loss: {WIDE}, gradient: {WIDE}",
        gamma=2.0,
        sigmoid=pooling != "mean",
        pixels=1600,
        pooling=pooling,
        **PIXELS,
    )
compiles(
    path_affinity._affinities,
    f"edge: {WIDE}, affinity: {NARROW}, {TABLES}",
    block_size=256,
    **PAIRS,
)
compiles(
    path_affinity._route_gradients,
    f"grad: {NARROW}, edge: {WIDE}, sums: i64, scale: fp64, {TABLES}",
    block_size=256,
    **PAIRS,
)
compiles(affinity_loss._count_pairs, f"edge: {WIDE}, label: {WIDE}, counts: i32, {TABLES}", **PAIRS)
compiles(affinity_loss._sum_pairs, f"edge: {WIDE}, counts: i32, parts: fp64", block_size=256)
compiles(
    affinity_loss._gradients,
    f"edge: {WIDE}, counts: i32, sums: fp64, gradients: {WIDE}",
    block_size=256,
)
for gradient in (False, True):
    compiles(
        displacement_loss._visit_pairs,
        f"field: {WIDE}, label: {WIDE}, parts: fp64, slopes: {WIDE}, visits: i32",
        gradient=gradient,
        block_size=256,
        **PAIRS,
    )
compiles(
    displacement_loss._gradients,
    f"slopes: {WIDE}, label: {WIDE}, sums: fp64, gradients: {WIDE}",
    eps=1e-5,
    block_size=256,
)
for flip, contiguous in ((False, "pixel_stride"), (True, "pixel_stride"), (True, "channel_stride")):
    compiles(
        extract_cam._class_maps,
        f"features: {NARROW}, weight: fp32, class_index: i64, ends: i64, maps: {WIDE}",
        channels=2048,
        flip=flip,
        precision="ieee" if WIDE == "fp64" else "tf32x3",
        slots=extract_cam.SLOTS,
        channel_block=extract_cam.CHANNELS,
        **{contiguous: 1},
    )
for add in (False, True):
    compiles(
        extract_cam._resize,
        f"maps: {WIDE}, out: {WIDE}",
        add=add,
    )
compiles(
    multi_scale_cam._sum_scales,
    f"maps: {WIDE}, table: i32, strided: {WIDE}, high_res: {WIDE}, maxima: {WIDE}",
)
