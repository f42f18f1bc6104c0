"""extract_cam against loops over images, classes and output pixels in float64."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from c2am import ops
from c2am.kernels import extract_cam as kernels
from c2am.ops import checks

SIZES = [(1, 1), (4, 3), (7, 3), (63, 100)]
BACKENDS = ["reference", "native"]


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize with pixel centres at the halves, clamped at the border."""

    def coordinates(size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
        low = np.floor(x).astype(int)
        return low, np.minimum(low + 1, size - 1), x - low

    y0, y1, v = coordinates(image.shape[0], height)
    x0, x1, u = coordinates(image.shape[1], width)
    rows = image[y0] * (1 - v)[:, None] + image[y1] * v[:, None]
    return rows[:, x0] * (1 - u) + rows[:, x1] * u


def expected(features: Tensor, weight: Tensor, present: Tensor, size: tuple[int, int]) -> Tensor:
    """The definition, pair by pair."""
    maps = []
    for b, z in np.argwhere(present.numpy()):
        total = np.zeros(features.shape[-2:])
        for v, view in enumerate(features[b].double().numpy()):
            product = np.maximum(np.tensordot(weight[z].double().numpy(), view, 1), 0)
            total += product[:, ::-1] if v == 1 else product
        maps.append(bilinear(total, *size))
    return torch.tensor(np.array(maps)).reshape(-1, *size)


def inputs(
    dtype: torch.dtype, views: int = 2, channels: int = 5, size: tuple[int, int] = (4, 3)
) -> tuple[Tensor, Tensor, Tensor]:
    features = torch.randn(3, views, channels, *size).to(dtype)
    weight = torch.randn(6, channels).to(dtype)
    present = torch.tensor([[1, 0, 0, 1, 0, 1], [0] * 6, [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    return features, weight, present


def laid_out(features: Tensor, layout: str) -> Tensor:
    """The same values in another order of the memory."""
    if layout == "channels_last":
        return features.movedim(2, -1).contiguous().movedim(-1, 2)
    return features.mT.contiguous().mT if layout == "transposed" else features


@pytest.mark.parametrize("dtype", checks.FEATURES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_matches_the_definition(
    dtype: torch.dtype,
    size: tuple[int, int],
    views: int,
    backend: str,
    launched: Callable[[str, str], int],
) -> None:
    features, weight, present = inputs(dtype, views)
    cam = ops.extract_cam(features, weight, present, size, flip=views == 2, backend=backend)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert_close(cam, expected(features, weight, present, size).to(wide))
    assert launched("extract_cam", "native") == (backend == "native")


@settings(max_examples=20)
@given(
    pairs=st.tuples(st.integers(0, 3), st.integers(0, 9)),
    channels=st.integers(0, 80),
    feature_size=st.tuples(st.integers(1, 20), st.integers(1, 33)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 130)),
    dtype=st.sampled_from(checks.FEATURES),
    flip=st.booleans(),
    layout=st.sampled_from(["planar", "channels_last", "transposed"]),
    seed=st.integers(0, 99),
)
def test_native_matches_reference_at_any_size(
    pairs: tuple[int, int],
    channels: int,
    feature_size: tuple[int, int],
    size: tuple[int, int],
    dtype: torch.dtype,
    flip: bool,
    layout: str,
    seed: int,
    native_runs: Callable[..., AbstractContextManager[None]],
) -> None:
    torch.manual_seed(seed)
    batch, classes = pairs
    features = laid_out(torch.randn(batch, 1 + flip, channels, *feature_size).to(dtype), layout)
    weight, present = torch.randn(classes, channels).to(dtype), torch.rand(batch, classes) < 0.5
    with native_runs("extract_cam", times=int(present.any())):
        cam = ops.extract_cam(features, weight, present, size, flip=flip, backend="native")
    wide = (features.double(), weight.double(), present)
    truth = ops.extract_cam(*wide, size, flip=flip, backend="reference")
    magnitude = torch.einsum("kc,bvchw->bkhw", wide[1].abs(), wide[0].abs())
    largest = float(magnitude.amax()) if magnitude.numel() else 0.0
    assert cam.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    atol = 2 * torch.finfo(cam.dtype).eps * largest
    assert_close(cam.double(), truth, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("labels", "channels", "feature_size", "size", "layout", "dtype"),
    [
        ("few", 5, (4, 3), (7, 3), "planar", torch.float32),
        ("few", 70, (1, 1), (1, 1), "planar", torch.float16),
        ("few", 70, (5, 9), (3, 70), "channels_last", torch.bfloat16),
        ("few", 5, (5, 9), (5, 9), "transposed", torch.float64),
        ("17 of 80", 7, (4, 3), (2, 2), "planar", torch.float32),  # several programs of an image
        ("one class", 130, (4, 3), (9, 9), "planar", torch.float32),
        ("none", 5, (4, 3), (7, 3), "planar", torch.float32),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.usefixtures("nan_in_fresh_memory")
def test_triton_matches_reference(
    labels: str,
    channels: int,
    feature_size: tuple[int, int],
    size: tuple[int, int],
    layout: str,
    dtype: torch.dtype,
    flip: bool,
    triton_device: torch.device,
    launched: Callable[[str, str], int],
    within_error_budget: Callable[[Tensor, Tensor, Tensor], None],
) -> None:
    features, weight, few = inputs(dtype, 1 + flip, channels, feature_size)
    features = laid_out(features, layout)
    present = {
        "few": few,
        "17 of 80": torch.arange(80) >= torch.tensor([[63], [80], [79]]),
        "one class": torch.tensor([[True], [False], [True]]),
        "none": torch.zeros_like(few),
    }[labels]
    weight = torch.randn(present.shape[1], channels).to(dtype)
    arguments = [features.to(triton_device), weight.to(triton_device), present]
    cam = ops.extract_cam(*arguments, size, flip=flip, backend="triton")
    assert launched("extract_cam", "triton") == (labels != "none")
    out = torch.rand(*cam.shape, device=cam.device).to(cam.dtype)
    strided = out.mT.clone(memory_format=torch.contiguous_format).mT
    added = ops.extract_cam(*arguments, size, flip=flip, out=strided, backend="triton")
    plain = ops.extract_cam(*arguments, size, flip=flip, backend="reference")
    wide = (arguments[0].double(), arguments[1].double(), arguments[2])
    truth = ops.extract_cam(*wide, size, flip=flip, backend="reference")
    within_error_budget(cam, plain, truth)
    within_error_budget(added, out + plain, out + truth)


def test_triton_shows_features_that_are_not_finite(triton_device: torch.device) -> None:
    """Of CUDA tensors no value is checked: they have to show in the result."""
    features, weight, present = (t.to(triton_device) for t in inputs(torch.float32))
    features[0, 1, 2, 3, 0] = float("nan")
    maps = kernels.class_maps(features, weight, present, present.nonzero())
    assert maps.isnan().nonzero().tolist() == [[0, 3, 2], [1, 3, 2], [2, 3, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["planar", "channels_last"])
def test_native_reads_every_half_number(dtype: torch.dtype, layout: str) -> None:
    """Subnormal ones too, one by one: a single channel of weight 1."""
    numbers = torch.arange(2**15).short().view(dtype).view(1, 1, 1, 128, 256)
    finite = numbers.isfinite()
    features = torch.where(finite, numbers, 0)
    if layout == "channels_last":
        features = torch.cat([features, torch.zeros_like(features)], 2)
        features = features.movedim(2, -1).contiguous().movedim(-1, 2)
    arguments = (features, torch.ones(1, features.shape[2]), torch.tensor([[True]]), (128, 256))
    cam = ops.extract_cam(*arguments, flip=False, backend="native")
    assert cam.equal(torch.where(finite, numbers, 0)[0, 0].float())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("image", [0, 1], ids=["labelled", "without label"])
def test_features_of_any_image_are_checked(backend: str, image: int) -> None:
    features, weight, present = inputs(torch.float32)
    features[image, 1, -1, -1, -1] = float("nan")
    out = torch.zeros(4, 7, 9)
    with pytest.raises(ValueError, match="extract_cam: features has NaN"):
        ops.extract_cam(features, weight, present, (7, 9), out=out, backend=backend)
    assert not out.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_products_may_overflow(backend: str) -> None:
    features, weight = torch.full((1, 1, 2, 3, 3), 1e30), torch.full((1, 2), 1e30)
    present = torch.tensor([[True]])
    cam = ops.extract_cam(features, weight, present, (3, 3), flip=False, backend=backend)
    assert not cam.isfinite().any()


def test_native_does_not_depend_on_the_number_of_threads(several_threads: Iterator[int]) -> None:
    arguments = inputs(torch.float32, 2, 40, (23, 31))
    first, *others = [
        ops.extract_cam(*arguments, (150, 70), backend="native") for _ in several_threads
    ]
    assert all(other.equal(first) for other in others)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_features_are_summed_in_float32(backend: str) -> None:
    features = torch.full((1, 1, 16, 2, 2), 200, dtype=torch.float16)
    weight = torch.full((1, 16), 200, dtype=torch.float16)
    present = torch.tensor([[True]])
    cam = ops.extract_cam(features, weight, present, (2, 2), flip=False, backend=backend)
    assert_close(cam, torch.full((1, 2, 2), 640000.0))  # float16 ends at 65504


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_is_added_to(backend: str) -> None:
    features, weight, present = inputs(torch.float32)
    out = torch.rand(4, 7, 9)
    before = out.clone()
    result = ops.extract_cam(features, weight, present, (7, 9), out=out, backend=backend)
    assert result is out
    assert_close(out, before + ops.extract_cam(features, weight, present, (7, 9)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_may_be_strided(backend: str) -> None:
    features, weight, present = inputs(torch.float32)
    out = torch.zeros(7, 9, 4).permute(2, 0, 1)
    ops.extract_cam(features, weight, present, (7, 9), out=out, backend=backend)
    assert_close(out, ops.extract_cam(features, weight, present, (7, 9)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_pair_and_no_image(backend: str) -> None:
    features, weight, present = inputs(torch.float32)
    none = torch.zeros_like(present)
    size = (5, 6)
    assert ops.extract_cam(features, weight, none, size, backend=backend).shape == (0, 5, 6)
    no_image = ops.extract_cam(features[:0], weight, present[:0], size, backend=backend)
    assert no_image.shape == (0, 5, 6)
    out = torch.zeros(0, 5, 6)
    assert ops.extract_cam(features, weight, none, size, out=out, backend=backend) is out


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_arguments(backend: str) -> None:
    features, weight, present = inputs(torch.float32)
    cam = ops.extract_cam(features, weight, present, (8, 6))
    strided = ops.extract_cam(
        features.permute(0, 1, 4, 3, 2).contiguous().permute(0, 1, 4, 3, 2),
        weight.T.contiguous().T,
        present.T.contiguous().T,
        (8, 6),
        backend=backend,
    )
    assert_close(strided, cam)


@pytest.mark.parametrize("backend", BACKENDS)
def test_absent_classes_cost_no_memory(
    backend: str, largest_allocation: Callable[..., int]
) -> None:
    features, weight = torch.rand(1, 1, 4, 32, 32), torch.rand(500, 4)
    present = torch.zeros(1, 500, dtype=torch.bool)
    present[0, 7] = True
    size = largest_allocation(
        lambda: ops.extract_cam(features, weight, present, (32, 32), flip=False, backend=backend)
    )
    assert size <= features.nbytes  # 500 maps would be 125 times as large


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("features", {"features": torch.zeros(3, 1, 5, 4, 3)}),
        ("features", {"features": torch.zeros(3, 2, 5, 4, 3, dtype=torch.int32)}),
        ("features", {"features": torch.full((3, 2, 5, 4, 3), float("nan"))}),
        ("features", {"features": torch.zeros(3, 2, 5, 4, 3, requires_grad=True)}),
        ("weight", {"weight": torch.zeros(6, 4)}),
        ("weight", {"weight": torch.full((6, 5), float("inf"))}),
        ("weight", {"weight": torch.zeros(6, 5, device="meta")}),
        ("present", {"present": torch.zeros(3, 5, dtype=torch.bool)}),
        ("present", {"present": torch.zeros(3, 6)}),
        ("height", {"size": (0, 4)}),
        ("out", {"out": torch.zeros(4, 8, 7)}),
        ("out", {"out": torch.zeros(3, 8, 6)}),
        ("out", {"out": torch.zeros(4, 8, 6, dtype=torch.float64)}),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, object]) -> None:
    features, weight, present = inputs(torch.float32)
    arguments = {"features": features, "weight": weight, "present": present, "size": (8, 6)}
    with pytest.raises((ValueError, TypeError), match=f"extract_cam: {name} "):
        ops.extract_cam(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(views: int, backend: str) -> None:
    arguments = inputs(torch.float32, views)
    out = torch.zeros(4, 7, 9)
    flip = views == 2
    torch.library.opcheck(torch.ops.c2am.extract_cam, (*arguments, 7, 9, flip, backend))
    torch.library.opcheck(torch.ops.c2am.extract_cam_add, (out, *arguments, flip, backend))


def test_compiles_to_one_graph() -> None:
    arguments = inputs(torch.float32)
    compiled = torch.compile(ops.extract_cam, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*arguments, (7, 9)), ops.extract_cam(*arguments, (7, 9)))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "reference"])
def test_labels_on_the_cpu_and_on_the_gpu_give_the_same(backend: str) -> None:
    features, weight, present = inputs(torch.float32)
    on_gpu = [features.cuda(), weight.cuda()]
    cam = ops.extract_cam(*on_gpu, present, (63, 100), backend=backend)
    assert cam.equal(ops.extract_cam(*on_gpu, present.cuda(), (63, 100), backend=backend))
    out = torch.zeros_like(cam)
    assert ops.extract_cam(*on_gpu, present, (63, 100), out=out, backend=backend).equal(cam)
