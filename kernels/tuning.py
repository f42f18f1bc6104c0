"""The choice among a kernel's few configurations (tile sizes, warps): measured, and kept.

On a GPU they are timed at the first launch that is large enough to tell; the result is kept in
Triton's cache folder for later processes on such a GPU. Configurations leave the order of sums in
float32 as it is. That of float64 partial sums may hang on the warps, which is far below the
rounding of the results.

Sizes that differ from image to image are not specialised (`do_not_specialize`): a kernel would be
compiled anew for those that are 1, and for multiples of 16. Those of normalize_cam
are the exception.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import triton
from triton.runtime.jit import KernelInterface

LEAST_PROGRAMS = 256
"""Fewer leave multiprocessors idle: nothing is measured then, the first configuration runs."""


class Tuned(KernelInterface):
    """A kernel with its configurations, `configs`; launched like the kernel without them."""

    def __init__(self, kernel: Any, configs: Sequence[triton.Config], **options: Any) -> None:
        self.kernel = kernel
        self.configs = list(configs)
        tune = triton.autotune(self.configs, cache_results=True, **options)
        self.tuner = tune(kernel)

    def run(self, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> Any:
        """Called by `kernel[grid](...)`; `grid` is a tuple, or a function of the constants."""
        first = self.configs[0].all_kwargs()
        shape = grid({**constants, **first}) if callable(grid) else grid
        if interpreted() or math.prod(shape) < LEAST_PROGRAMS:
            constants |= first
            return self.kernel.run(*arguments, grid=grid, warmup=warmup, **constants)
        return self.tuner.run(*arguments, grid=grid, warmup=warmup, **constants)


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, whose times mean nothing."""
    return triton.knobs.runtime.interpret


def tuned(
    *configs: triton.Config,
    key: Sequence[str] = (),
    reset_to_zero: Sequence[str] | None = None,
    restore_value: Sequence[str] | None = None,
) -> Callable[[Any], Tuned]:
    """Decorate a `triton.jit` kernel with its configurations, the usual one first.

    Args:
        configs: What is tried.
        key: Arguments whose values are tuned for one by one, as the dtypes of tensors are.
        reset_to_zero: Zeroed tensors that the kernel adds to.
        restore_value: Tensors that the kernel changes in place.
    """
    options = {"key": list(key), "reset_to_zero": reset_to_zero, "restore_value": restore_value}
    return lambda kernel: Tuned(kernel, configs, **options)
