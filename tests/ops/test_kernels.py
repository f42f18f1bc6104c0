"""The Triton kernels compile to machine code of each supported GPU, without one being present."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp64", "bf16"])
def test_compiles_for(capability: int, dtype: str) -> None:
    # In a process of its own, since here Triton may have been imported for its interpreter.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_kernels.py")
    command = [sys.executable, str(script), str(capability), dtype]
    subprocess.run(command, check=True, env=environment)
