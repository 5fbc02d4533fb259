"""Which decoder the clips of each format get on this machine: what `maskstream bench --decode` measured there.

The file is `decoders.json` in the user's folder of states (on Linux ~/.local/state/maskstream); $MASKSTREAM_DECODERS or
a path names another. It has an entry per machine: clips a second of each format by each decoder.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs
import torch

from maskstream.pipelines.modalities.backend import dali_version, find_card

Speeds = Mapping[str, Mapping[str, float]]
"""Clips a second by format, such as "h264 yuv420p", and decoder, "cpu" or "dali"."""
MEASURE = "measure it with `maskstream bench DATA --decode`"


def decoders_path() -> Path:
    """The file of this user, unless $MASKSTREAM_DECODERS names another."""
    return Path(os.environ.get("MASKSTREAM_DECODERS") or platformdirs.user_state_path("maskstream") / "decoders.json")


def describe_machine(device: torch.device) -> dict[str, str]:
    """What the speeds depend on: the card of a CUDA device, the processor and its cores, and the versions."""
    card = asdict(find_card(device)) if device.type == "cuda" else {"name": "none", "dali": dali_version()}
    return {**card, "processor": _processor(), "cores": str(len(os.sched_getaffinity(0))), "av": version("av")}


def write_speeds(path: Path, device: torch.device, speeds: Speeds) -> None:
    """Writes the speeds of this machine down, in place of those that were measured there before."""
    machine = describe_machine(device)
    others = [entry for entry in _entries(path) if entry.get("machine") != machine]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*others, {"machine": machine, "clips_per_s": speeds}], indent=1) + "\n")


def faster_with_dali(given: str | None, device: torch.device, codecs: Collection[str]) -> frozenset[str] | None:
    """The formats of these codecs that DALI decodes faster than PyAV's threads here; None if nothing was measured.

    given: the file, by default that of this user. ValueError if a file is given that says nothing of this machine.
    """
    path = Path(given) if given is not None else decoders_path()
    entries = _entries(path) if path.is_file() else []
    found = next((one for one in entries if one.get("machine") == describe_machine(device)), None)
    if found is None:
        if given is not None:
            raise ValueError(f"decoders={given!r} has no speeds of this machine and these versions; {MEASURE}")
        return None
    speeds: Speeds = found["clips_per_s"]
    return frozenset(name for name, of in speeds.items() if name.split()[0] in codecs and fastest(of) == "dali")


def fastest(speeds: Mapping[str, float]) -> str:
    """The decoder with the most clips a second."""
    return max(speeds, key=lambda decoder: speeds[decoder])


def _processor() -> str:
    """The processor's name as Linux gives it, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _entries(path: Path) -> list[dict[str, Any]]:
    """The entries of a file; ValueError if it is none of `maskstream bench --decode`."""
    try:
        found = json.loads(path.read_text()) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no file of decoders' speeds ({error}); remove it, and {MEASURE}") from error
    if not isinstance(found, list) or not all(
        isinstance(e, dict) and {"machine", "clips_per_s"} <= set(e) for e in found
    ):
        raise ValueError(f"{path} is no file of decoders' speeds; remove it, and {MEASURE}")
    return found
