"""What ``fss doctor`` finds out about the machine: versions, processors, memory, disks, W&B and SLURM."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from fss.commands import typed
from fss.data.reading.derived_files import cache_dir
from fss.doctor.check_result import CheckResult, size
from fss.runs.processes.signals import inside_slurm
from fss.runs.shared_memory import SHM, batch_bytes, free_bytes
from fss.tracking.wandb_mode import has_key, wandb_mode

_SHOWN = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "albumentations",
    "opencv-python-headless",
    "numpy",
)
"""Packages with a line of their own; the others are named only where they do not fit."""

_DRIVER = Path("/proc/driver/nvidia/version")


def versions() -> Iterator[CheckResult]:
    """Compare Python and the packages with what pyproject.toml asks for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        known = distribution("fss")
    except PackageNotFoundError:
        yield CheckResult("fss", "problem", "is not installed, so what it needs is unknown", "pip install -e .")
        return
    asked = known.metadata["Requires-Python"] or ""
    here = platform.python_version()
    if SpecifierSet(asked).contains(here, prereleases=True):
        yield CheckResult("python", "ok", here, facts={"version": here})
    else:
        yield CheckResult(
            "python", "problem", f"{here}, needed is {asked}", "make setup PYTHON=python3.12", blocks=True
        )
    for line in known.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _package(requirement.name, requirement.specifier)


def _package(name: str, asked: object) -> Iterator[CheckResult]:
    from packaging.specifiers import SpecifierSet

    command = f"pip install '{name}{asked}'"
    try:
        here = version(name)
    except PackageNotFoundError:
        yield CheckResult(name, "missing", f"not installed, needed is {asked}", command, blocks=True)
        return
    facts = {"version": here, "needed": str(asked)}
    if not SpecifierSet(str(asked)).contains(here, prereleases=True):
        yield CheckResult(name, "problem", f"{here}, needed is {asked}", command, facts=facts)
    elif name in _SHOWN:
        yield CheckResult(name, "ok", here, facts=facts)


def hardware(multirun: Path) -> Iterator[CheckResult]:
    """Count cores, memory and free disk space.

    Args:
        multirun: folder of the runs.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield CheckResult("CPU", "ok", f"{cores} cores for this process", facts={"cores": cores})
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield CheckResult("memory", "ok", f"{size(total)} in all", facts={"bytes": total})
    yield from _shared_memory()
    for name, folder in (("disk of runs", multirun), ("disk of cache", cache_dir())):
        yield _disk(name, folder.expanduser().absolute())


def _shared_memory() -> Iterator[CheckResult]:
    """Compare shared memory with what two loader processes need for the paper's batches."""
    free = free_bytes()
    if free is None:
        return
    needed = batch_bytes(8, 5, 473) * 4
    facts = {"free_bytes": free, "needed_bytes": needed}
    text = f"{free / 2**20:,.0f} MiB free in {SHM}"
    if free >= needed:
        yield CheckResult("shared memory", "ok", text, facts=facts)
        return
    text += f"; loader processes of a 5-shot training at 473 px need {needed / 2**20:,.0f} MiB"
    yield CheckResult("shared memory", "problem", text, f"mount -o remount,size=8G {SHM}", facts=facts)


def _disk(name: str, folder: Path) -> CheckResult:
    there = next(p for p in (folder, *folder.parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    facts = {"folder": str(folder), "free_bytes": free}
    if not os.access(there, os.W_OK):
        command = (
            "export FSS_CACHE=/folder/with/room" if name == "disk of cache" else f"chmod u+w {shlex.quote(str(there))}"
        )
        return CheckResult(name, "problem", f"{there} cannot be written to", command, blocks=True, facts=facts)
    return CheckResult(name, "ok", f"{size(free)} free at {folder}", facts=facts)


def gpus() -> Iterator[CheckResult]:
    """Name GPUs, driver and CUDA; torch, which takes seconds, is imported only where a driver is."""
    driver = _driver()
    if driver is None:
        text = "no NVIDIA driver here; training on the CPU suits the drawn data set only"
        yield CheckResult("GPU", "note", text, typed("data=shapes", "trainer=cpu"), facts={"count": 0})
        return
    import torch

    facts = {"driver": driver, "cuda": torch.version.cuda, "count": torch.cuda.device_count()}
    if torch.version.cuda is None:
        command = "pip install --force-reinstall torch torchvision"
        yield CheckResult("GPU", "problem", f"driver {driver}, but torch is built without CUDA", command, facts=facts)
    elif not torch.cuda.is_available():
        text = f"driver {driver}, but torch with CUDA {torch.version.cuda} finds no usable GPU; the command says why"
        yield CheckResult("GPU", "problem", text, "python -c 'import torch; torch.cuda.init()'", facts=facts)
    for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(k)
        more = facts | {"name": card.name, "bytes": card.total_memory}
        text = f"{card.name}, {size(card.total_memory)}, CUDA {torch.version.cuda}, driver {driver}"
        yield CheckResult(f"GPU {k}", "ok", text, facts=more)


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, or None where there is none."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        lines = done.stdout.split()
    except (OSError, subprocess.SubprocessError):
        lines = []
    if lines:
        return lines[0]
    return "of unknown version" if _DRIVER.is_file() else None


def wandb(offline: list[Path]) -> Iterator[CheckResult]:
    """Say how runs are logged to W&B, without contacting it.

    Args:
        offline: folders of runs that were logged offline and not uploaded.
    """
    mode, key = wandb_mode("auto"), has_key()
    text = f"logger.wandb=auto is {mode} here: a key is {'set (not tried)' if key else 'not set'}"
    login = None if key or mode == "disabled" else "wandb login"
    yield CheckResult("mode", "ok" if key else "note", text, login, facts={"mode": mode, "key": key})
    facts = {"unsynced": [str(p) for p in offline]}
    if offline:
        below = {str(p.parent.parent.parent) for p in offline}
        command = "wandb sync " + " ".join(f"{shlex.quote(folder)}/*/wandb/offline-run-*" for folder in sorted(below))
        yield CheckResult("offline runs", "note", f"{len(offline)} wait for their upload", command, facts=facts)
    else:
        yield CheckResult("offline runs", "ok", "none waits for its upload", facts=facts)


def slurm() -> Iterator[CheckResult]:
    """Say whether SLURM is there."""
    job = os.environ.get("SLURM_JOB_ID") if inside_slurm() else None
    text = "not inside a job" if job is None else f"inside job {job}"
    yield CheckResult("job", "note" if job is None else "ok", text, facts={"job": job})
    path = shutil.which("sbatch")
    text = "is not on the path: jobs cannot be submitted from here" if path is None else path
    yield CheckResult("sbatch", "note" if path is None else "ok", text, facts={"sbatch": path})
