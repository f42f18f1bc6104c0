"""The Triton kernels compile to machine code of each supported GPU, without one being present."""

import os
import subprocess
import sys

import pytest

# In a process of its own, since here Triton may have been imported for its interpreter.
COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from c2am.kernels import accumulate_global_cam, front_door_logits, normalize_cam

capability, dtype = int(sys.argv[1]), sys.argv[2]
wide = "fp64" if dtype == "fp64" else "fp32"

def compile_kernel(kernel, types, **constants):
    names = [p.name for p in kernel.params]
    signature = {n: types.get(n, "constexpr") for n in names}
    values = {(names.index(n),): v for n, v in constants.items()}
    source = ASTSource(kernel, signature, values)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]

sizes = {"pixels": "i32", "blocks": "i32", "maps": "i32", "classes": "i32"}
cams = {"cam": "*" + dtype, "out": "*" + dtype, "maxima": "*" + wide}
sums = {"total": "*" + wide, "count": "*i64", "class_index": "*i64"}
pooled = {n: "*" + wide for n in ("p_values", "global_cam", "score", "slope")}
assert compile_kernel(normalize_cam._block_maximum, cams | sizes, block_size=1024)
assert compile_kernel(
    normalize_cam._divide, cams | sizes, eps=1e-5, block_size=1024, padded_blocks=4
)
assert compile_kernel(
    accumulate_global_cam._accumulate, cams | sums | sizes,
    shift=1.5 * 2**22, block_size=1024, padded_maps=4,
)
sizes.pop("pixels")
for pooling in ("mean", "max", "lse"):
    assert compile_kernel(
        front_door_logits._pool, pooled | sizes, pixels=1600, pooling=pooling, block_size=1024
    )
"""


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp64", "bf16"])
def test_compiles_for(capability: int, dtype: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-", str(capability), dtype]
    subprocess.run(command, input=COMPILE, text=True, check=True, env=environment)
