"""`maskstream info`."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from .terminal import Json, show

PACKAGES = ("torch", "numpy", "av", "opencv-python-headless", "numba", "pyarrow", "obstore", "tokenizers")
DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
DRAWN = {"libEGL.so": ("EGL", "libegl1 libgl1-mesa-dri"), "libGLU.so": ("GLU", "libglu1-mesa")}
"""The libraries that draw without a screen: their names for the linker, and the Debian packages that have them."""
NEED_LIBRARIES = {"metaworld": ("libEGL.so",), "walks": ("libEGL.so", "libGLU.so")}
"""The libraries that extras need besides packages of Python."""
PROGRAMS = {"apt-get": "datasets of Debian's packages", "npm": "datasets of npm's", "sbatch": "--executor slurm"}
"""Programs, and what runs them."""
_EXTRA = re.compile(r"([\w.-]+)(?:\[[^]]*\])?([^;]*);.*\bextra == ['\"]([\w.-]+)['\"]")


def info(as_json: Json = False) -> None:
    """Print what a report of a bug should say: versions, devices, what each extra lacks, and where caches lie."""
    show(facts(), as_json)


def facts() -> dict[str, str]:
    """What is here, by name. It has no name of a user or a host, but for folders, and no value of a credential."""
    import av

    from maskstream.pipelines.modalities.backend import record_path
    from maskstream.pipelines.modalities.video.decoders import decoders_path
    from maskstream.shards.format.index_cache import cache_folder

    ffmpeg = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in sorted(av.library_versions.items()))
    dali = [f"{name} {found}" for name in DALI if (found := _version(name))]
    return {
        "maskstream": _version("maskstream") or "not installed",
        "Python": f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}",
        "CPU": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        **{name: _version(name) or "not installed" for name in PACKAGES},
        "FFmpeg of av": ffmpeg,
        "DALI": ", ".join(dali) or "not installed",
        **_devices(),
        **{f"extra {name}": words for name, words in _extras()},
        **{f"program {name}": shutil.which(name) or f"not here; it is for {use}" for name, use in PROGRAMS.items()},
        "cache of indexes": _place(cache_folder()),
        "speeds of decoders": _place(decoders_path()),
        "accepted cards": _place(record_path()),
    }


def _devices() -> dict[str, str]:
    """The CUDA devices that torch sees, by number, and the CUDA that it was built for."""
    import torch

    built = torch.version.cuda
    if not torch.cuda.is_available():
        return {"CUDA": "no device" + (f"; torch is built for CUDA {built}" if built else "; torch is built without")}
    found = {}
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.major}.{card.minor}"
    return {"CUDA": f"torch is built for CUDA {built}", **found}


def _extras() -> Iterator[tuple[str, str]]:
    """Each extra of the package, and what it lacks with the command that brings it."""
    needed: dict[str, list[tuple[str, str]]] = {}
    for line in requires("maskstream") or ():
        if found := _EXTRA.match(line):
            package, bounds, extra = found.groups()
            needed.setdefault(extra, []).append((package, bounds.strip(" ()")))
    for extra, packages in sorted(needed.items()):
        lacking = [package for package, bounds in packages if not _fits(package, bounds)]
        libraries = [name for name in NEED_LIBRARIES.get(extra, ()) if find_library(DRAWN[name][0]) is None]
        words = [f"lacks {', '.join(lacking)}: pip install 'maskstream[{extra}]'"] if lacking else []
        words += [f"lacks {name}: apt-get install {DRAWN[name][1]}" for name in libraries]
        yield extra, "; ".join(words) or "there"


def _fits(package: str, bounds: str) -> bool:
    """Whether a package is installed, in the version that `bounds` names with ==, where it does."""
    found, (_, pinned, wanted) = _version(package), bounds.partition("==")
    return bool(found) and (not pinned or found == wanted or (wanted.endswith(".*") and found.startswith(wanted[:-1])))


def _version(package: str) -> str:
    """The installed version of a package; "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _place(path: Path) -> str:
    """Where something lies, and whether it is there."""
    return f"{path}{'' if path.exists() else ' (not made yet)'}"
