"""The operations of C2AM, each with a plain PyTorch reference and faster backends.

See `docs/ops.md`. Every op takes `backend="auto" | "reference" | "native" | "triton"`.
"""

from c2am.ops.dispatch import BackendError, available, backend_of, launches

__all__ = ["BackendError", "available", "backend_of", "launches"]
