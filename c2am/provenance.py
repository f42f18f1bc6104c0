"""What a result was made from and with: fingerprints, versions, device, peak memory."""

import hashlib
import json
import platform
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import c2am
from c2am.config import PipelineConfig
from c2am.data.dataset import DataError, Dataset
from c2am.wording import counted

# Fields that change how fast a stage runs or what it prints, not what it makes. Where the data
# lie is one of them, and what the lists are called: their images have a fingerprint of their own.
_IRRELEVANT = {
    "data": {"root", "sbd", "labels", "threads"}
    | {"train_list", "score_list", "val_list", "test_list"},
    "cam": {"batch_size", "max_pixels"},
    "irn_labels": {"stream"},
    "predictions": {"batch_size"},
}
_IRRELEVANT_ANYWHERE = {"checkpoint_every", "keep_checkpoints", "log_every"} | {
    "compile",
    "compile_mode",
}
_CLEAR_PEAK = "5"


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, as 64 hexadecimal digits; keys in any order."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def section(config: PipelineConfig, name: str) -> dict[str, Any]:
    """A section of the configuration, without the fields that leave results as they are."""
    left_out = _IRRELEVANT.get(name, set()) | _IRRELEVANT_ANYWHERE
    values = asdict(getattr(config, name))
    return {key: value for key, value in values.items() if key not in left_out}


def images_fingerprint(dataset: Dataset, ids: list[str]) -> str:
    """Of a list of images: the ids in order, their labels, and the sizes of the files in bytes.

    Images of a test list have no labels.
    """
    digest = hashlib.sha256(json.dumps(dataset.classes).encode())
    for image_id in ids:
        digest.update(f"{image_id} {_bytes(dataset.image_path(image_id))} ".encode())
        digest.update(_labels(dataset, image_id))
    return digest.hexdigest()


def masks_fingerprint(dataset: Dataset, ids: list[str]) -> str:
    """Of the masks of a list of images: which there are, and their sizes in bytes."""
    masks = {image_id: dataset.mask_path(image_id) for image_id in ids}
    return fingerprint({name: path and _bytes(path) for name, path in masks.items()})


def _labels(dataset: Dataset, image_id: str) -> bytes:
    try:
        return dataset.labels(image_id).tobytes()
    except DataError:  # reported by the stage that needs them
        return b"none"


def _bytes(path: Path) -> int | None:
    # A missing image is reported by the stage that reads it, with what to do about it.
    return path.stat().st_size if path.exists() else None


def versions() -> dict[str, str]:
    """Versions of c2am, torch and Python."""
    return {
        "c2am": c2am.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's and the number of threads used."""
    if device.type == "cuda":
        return hardware_name(device)
    return f"{hardware_name(device)}, {counted(torch.get_num_threads(), 'thread')}"


def hardware_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.machine()} CPU"


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from here; where the kernel refuses, from the process's start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Peak of this process in bytes: GPU memory allocated by torch, or resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
