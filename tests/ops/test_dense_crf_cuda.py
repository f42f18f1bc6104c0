"""What a GPU's dense CRF takes and refuses; the host decides that, so no GPU is needed."""

import pytest
import torch

from c2am import _core
from c2am.ops.dense_crf_cuda import CudaCrf, _check_size
from c2am.ops.dense_crf_reference import Kernels

pytestmark = pytest.mark.skipif(not _core.has_cuda, reason="the core is compiled without CUDA")


@pytest.mark.parametrize(("sxy", "srgb"), [(50, 5), (67, 3), (3, 1), (1, 0.25)])
def test_images_up_to_4096(sxy: float, srgb: float) -> None:
    kernels = Kernels(3.0, 3.0, sxy, srgb, 10.0)
    _check_size(4096, 4096, kernels)
    small, large = (torch.empty(9, side, side, 3, device="meta") for side in (500, 4096))
    assert CudaCrf.at_once(small, kernels) > 1
    assert CudaCrf.at_once(large, kernels) == 1


@pytest.mark.parametrize(
    ("message", "size", "sxy", "srgb"),
    [
        (r"bilateral_srgb is 0.001, too small .* 4096 x 3000", (4096, 3000), 50.0, 0.001),
        (r"bilateral_sxy is 1e-05, too small .* 40 x 30", (40, 30), 1e-5, 3.0),
        (r"image is 20000 x 20000, expected at most 357913941 pixels", (20000, 20000), 50.0, 5.0),
    ],
)
def test_what_is_refused_is_named(
    message: str, size: tuple[int, int], sxy: float, srgb: float
) -> None:
    with pytest.raises(ValueError, match=f"dense_crf: {message}"):
        _check_size(*size, Kernels(3.0, 3.0, sxy, srgb, 10.0))
