"""The dense CRF of a configuration."""

from torch import Tensor

from c2am import ops
from c2am.config import CrfConfig


def crf_plan(image: Tensor, config: CrfConfig) -> ops.DenseCrfPlan:
    """The kernels of `image (H, W, 3)` uint8, for any number of inferences."""
    return ops.DenseCrfPlan(
        image,
        gaussian_sxy=config.gaussian_sxy,
        gaussian_compat=config.gaussian_compat,
        bilateral_sxy=config.bilateral_sxy,
        bilateral_srgb=config.bilateral_srgb,
        bilateral_compat=config.bilateral_compat,
    )


def infer(plan: ops.DenseCrfPlan, unary: Tensor, config: CrfConfig) -> Tensor:
    """Marginals (C, H, W) for `unary (C, H, W)`, after the configured iterations."""
    return plan(unary, iterations=config.iterations)
