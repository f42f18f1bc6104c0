"""Mixed precision, chosen in one place for training and inference."""

from contextlib import AbstractContextManager

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware (CUDA; AMX or AVX512-BF16)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager[None]:
    """Autocast to bfloat16, or nothing.

    `precision`: float32, bfloat16, or auto, which is bfloat16 where `device` is fast at it.
    """
    enabled = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
