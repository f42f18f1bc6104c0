"""The dense CRF of a configuration."""

import torch
from torch import Tensor

from c2am import ops
from c2am.config import CrfConfig


def crf_device(device: torch.device) -> torch.device:
    """`device` if the CRF is compiled for it, else the CPU, where it always can be."""
    compiled = ops.backend_of("dense_crf", device) != "reference"
    return device if compiled else torch.device("cpu")


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
    """Labels (H, W) uint8 for `unary (C, H, W)`, after the configured iterations."""
    return plan(unary, iterations=config.iterations, output="labels")
