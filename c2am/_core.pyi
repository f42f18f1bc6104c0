"""The compiled core. Addresses are those of contiguous tensors: `tensor.data_ptr()`."""

from collections.abc import Sequence

has_cuda: bool

isa: str
"""Instruction set in use: scalar, avx2 or avx512; the environment variable C2AM_ISA chooses."""

class Memory:
    """A writable buffer, not initialised; large ones are kept for the next when they are freed."""

    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class DenseCrf:
    """`image` (H, W, 3) uint8; throws ValueError where its features do not fit the lattice."""

    def __init__(
        self,
        image: int,
        height: int,
        width: int,
        *,
        gaussian_sxy: float,
        gaussian_compat: float,
        bilateral_sxy: float,
        bilateral_srgb: float,
        bilateral_compat: float,
        exact: bool,
        threads: int,
    ) -> None: ...
    def run(
        self,
        unary: int,
        *,
        marginals: int,
        labels: int,
        classes: int,
        iterations: int,
        half: bool,
        threads: int,
    ) -> None:
        """`unary`: (C, H, W) float32; gives either `marginals`, likewise, or `labels` (H, W) uint8.

        The address of the other one is 0.
        """

class DenseCrfKernels:
    """Standard deviations and compatibilities, as of `DenseCrf`. Only if `has_cuda`."""

    def __init__(
        self,
        *,
        gaussian_sxy: float,
        gaussian_compat: float,
        bilateral_sxy: float,
        bilateral_srgb: float,
        bilateral_compat: float,
    ) -> None: ...

class DenseCrfCuda:
    """`DenseCrf` on device memory, for images of one size together. Only if `has_cuda`.

    Call `find`, `build`, and then `infer` any number of times; each queues its work on `stream`.
    All blocks are the caller's. `hashed` finds the lattice's vertices with a hash table, not by
    sorting. Throws ValueError for more images than `most_images`.
    """

    @staticmethod
    def most_images(height: int, width: int, kernels: DenseCrfKernels) -> int: ...
    def __init__(
        self,
        images: int,
        height: int,
        width: int,
        kernels: DenseCrfKernels,
        *,
        device: int,
        hashed: bool,
    ) -> None: ...
    def points_bytes(self) -> int: ...
    def vertices_bytes(self, vertices: int) -> int: ...
    def find_bytes(self) -> int: ...
    def build_bytes(self, vertices: int) -> int: ...
    def infer_bytes(self, classes: int, half: bool) -> int: ...
    def find(self, image: int, *, points: int, scratch: int, vertices: int, stream: int) -> None:
        """Find the vertices of `image` (B, H, W, 3), and write their number to `vertices` int32.

        The block `points` is to stay, `scratch` until `build` is queued.
        """

    def build(self, vertices: int, *, block: int, scratch: int, stream: int) -> None:
        """Build the lattice into `block`, which is to stay."""

    def infer(
        self,
        unary: int,
        *,
        marginals: int,
        labels: int,
        classes: int,
        iterations: int,
        half: bool,
        scratch: int,
        stream: int,
    ) -> None:
        """As `DenseCrf.run`, of `unary` (B, C, H, W)."""

class MeanField:
    """Mean field in a fully connected CRF with any kernels and compatibilities.

    All arrays are float32. `compat` (classes, classes) holds energies and is symmetric;
    `normalization` is 0 for none, 1 before, 2 after, 3 symmetric.
    """

    def __init__(self, points: int, classes: int) -> None: ...
    def add_lattice(
        self,
        features: int,
        points: int,
        dimension: int,
        *,
        normalization: int,
        compat: int,
        threads: int,
    ) -> None:
        """Add a Gaussian kernel on the permutohedral lattice.

        `features` (dimension, points), finite, in standard deviations, dimension from 1 to 16.
        Throws ValueError where they do not fit the lattice.
        """

    def add_spatial(
        self,
        height: int,
        width: int,
        sx: float,
        sy: float,
        *,
        normalization: int,
        compat: int,
        threads: int,
    ) -> None:
        """Add an exact Gaussian kernel of the positions in an image."""

    def update(
        self, unary: int, marginals: int, *, steps: int, started: bool, threads: int
    ) -> None:
        """Update `marginals` (classes, points), from softmax(-unary) unless `started`."""

    def messages(self, marginals: int, out: int, *, threads: int) -> None:
        """What the kernels add to the logits: `out` (classes, points)."""

def random_walk(
    images: list[tuple[int, int, int, int, int, int]],
    *,
    radius: float,
    beta: float,
    steps: int,
    chebyshev: bool,
    tolerance: float,
    threads: int,
) -> None:
    """Each image: `cam` (K, H, W), `edge` (H, W), `out` (K, H, W), all float32, and K, H, W."""

class RandomWalkCuda:
    """`random_walk` on device memory, images of similar width together. Only if `has_cuda`.

    `device`: its index; it becomes the current one, also of `run`.
    """

    def __init__(
        self,
        images: Sequence[tuple[int, int, int, int, int, int]],
        *,
        radius: float,
        beta: float,
        steps: int,
        chebyshev: bool,
        tolerance: float,
        device: int,
    ) -> None: ...
    def bytes(self) -> int:
        """Of the block of device memory that `run` gets."""

    def run(self, block: int, *, stream: int) -> None:
        """Queue the walks on `stream`."""

def class_maps(
    features: int,
    weight: int,
    present: int,
    maps: int,
    images: int,
    views: int,
    channels: int,
    height: int,
    width: int,
    *,
    classes: int,
    channels_last: bool,
    dtype: str,
    threads: int,
) -> bool:
    """`features` (B, V, C, h, w) of `dtype`, `channels_last`: (B, V, h, w, C) in memory; `weight`
    (Z, C) and `maps` (K, h, w) float32, float64 for float64 features; `present` (B, Z) bool.
    Returns whether all products of features and weights are finite."""

def resize_maps(
    maps: int,
    out: int,
    count: int,
    height: int,
    width: int,
    out_height: int,
    out_width: int,
    *,
    add: bool,
    dtype: str,
    threads: int,
) -> None:
    """`maps` (K, h, w), `out` (K, H, W), both float32 or float64."""

def multi_scale_cam(
    scales: Sequence[tuple[int, int, int]],
    out: int,
    count: int,
    height: int,
    width: int,
    kept_height: int,
    kept_width: int,
    *,
    eps: float,
    dtype: str,
    threads: int,
) -> None:
    """`scales`: maps (K, h, w) with h and w, of values from 0 on; `out` (K, kept_height,
    kept_width); all of `dtype`, float32 or float64."""

def label_maps(
    images: Sequence[tuple[int, list[int], int, int, int, int, int, int]],
    *,
    stride: int,
    threshold: float,
    threads: int,
) -> None:
    """`images`: float32 maps (K, h, w), their labels, `out` (H, W) uint8, then K, h, w, H, W."""

class LabelMapsCuda:
    """`label_maps` on device memory, all images together. Only if `has_cuda`."""

    def __init__(
        self,
        images: Sequence[tuple[int, list[int], int, int, int, int, int, int]],
        *,
        stride: int,
        threshold: float,
        device: int,
    ) -> None: ...
    def bytes(self) -> int:
        """Of the block of device memory that `run` gets."""

    def run(self, block: int, *, stream: int) -> None:
        """Queue the labelling on `stream`."""

def normalize_cam(
    cam: int, out: int, maps: int, pixels: int, *, eps: float, dtype: str, threads: int
) -> bool:
    """`cam` and `out` (K, pixels) of `dtype`. False if a value is negative or not finite."""

def accumulate_global_cam(
    cam: int,
    class_index: int,
    total: int,
    count: int,
    maps: int,
    pixels: int,
    *,
    dtype: str,
    total_dtype: str,
    threads: int,
) -> bool:
    """`cam` (K, pixels) and `total` (Z, pixels), each float32 or float64; `class_index` (K,) and
    `count` (Z,) int64. False if a value of `cam` is not in 0..1; then nothing is added."""

def front_door_logits(
    logits: int,
    global_cam: int,
    score: int,
    slope: int,
    batch: int,
    classes: int,
    pixels: int,
    *,
    pooling: str,
    gamma: float,
    sigmoid: bool,
    dtype: str,
    threads: int,
) -> bool:
    """`logits`, `score` and its derivative `slope` (B, Z), `global_cam` (Z, pixels), all float32 or
    float64. False if a logit or a value of `global_cam` is not finite."""

def path_affinity(
    edge: int,
    affinity: int,
    batch: int,
    height: int,
    width: int,
    *,
    radius: float,
    dtype: str,
    threads: int,
) -> None:
    """`edge` (B, H, W), `affinity` (B, P, N), both float32 or float64."""

def path_affinity_backward(
    grad: int,
    edge: int,
    grad_edge: int,
    batch: int,
    height: int,
    width: int,
    *,
    radius: float,
    dtype: str,
    threads: int,
) -> None:
    """`grad` (B, P, N), `edge` and `grad_edge` (B, H, W), all float32 or float64."""

def affinity_loss(
    edge: int,
    label: int,
    losses: int,
    gradients: int,
    batch: int,
    height: int,
    width: int,
    *,
    radius: float,
    dtype: str,
    threads: int,
) -> None:
    """`edge` (B, H, W); `label` (B, H, W), -1 for void; `losses` (3,); `gradients` (3, B, H, W), or
    0 for none. All float32 or float64."""

def displacement_loss(
    displacement: int,
    label: int,
    losses: int,
    gradients: int,
    batch: int,
    height: int,
    width: int,
    *,
    radius: float,
    dtype: str,
    threads: int,
) -> None:
    """`displacement` (B, 2, H, W); `label` (B, H, W), -1 for void; `losses` (2,); `gradients`
    (2, B, 2, H, W), or 0 for none. All float32 or float64."""
