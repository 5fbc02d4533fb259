"""Whether DALI serves a loader, or PyAV and torch code; the log says which and why."""

import ctypes
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import platformdirs
import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuCard:
    """What a figure of a GPU depends on: the card's name, the CUDA version of its driver, and the versions of DALI and
    torch."""

    name: str
    driver: str
    dali: str
    torch: str


def find_card(device: torch.device) -> GpuCard:
    """The card of a CUDA device, with the present versions."""
    return GpuCard(
        name=torch.cuda.get_device_name(device),
        driver=_driver_version(),
        dali=dali_version(),
        torch=torch.__version__,
    )


def record_path() -> Path:
    """The file of accepted cards, in the user's folder of states; $MASKSTREAM_ACCEPTED names another."""
    return Path(os.environ.get("MASKSTREAM_ACCEPTED") or platformdirs.user_state_path("maskstream") / "gpu.json")


def accept(card: GpuCard, fastest: str) -> None:
    """Writes down that acceptance has passed on a card, and which backend, "dali" or "cpu", was the fastest there."""
    path = record_path()
    others = [entry for entry in _entries(path) if entry.get("card") != asdict(card)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*others, {"card": asdict(card), "fastest": fastest}], indent=1) + "\n")


def not_accepted(device: torch.device, *, measured: bool = False) -> str:
    """Why DALI is not the backend of "auto" on a CUDA device, in words; "" if it is.

    measured: whether the speed of each format is known (`maskstream bench --decode`), so that passing is enough.
    """
    try:
        card = find_card(device)
    except (AssertionError, RuntimeError, OSError) as error:
        return f"the device cannot be asked for its name ({' '.join(str(error).split())})"
    for entry in _entries(record_path()):
        if entry.get("card") == asdict(card):
            return (
                "" if measured or entry.get("fastest") == "dali" else "acceptance (make gpu) found the CPU to be faster"
            )
    return f"acceptance (make gpu) has not passed on {card.name} with these versions; backend='dali' uses it anyway"


def _entries(path: Path) -> list[dict[str, object]]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _driver_version() -> str:
    """The CUDA version of the driver, such as "13.0"; raises OSError without a driver."""
    found = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    return f"{found.value // 1000}.{found.value % 1000 // 10}"


def dali_version() -> str:
    """The version of DALI, or that it is not installed."""
    for name in ("nvidia-dali-cuda130", "nvidia-dali-cuda120"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


Backend = Literal["auto", "cpu", "dali"]

log = logging.getLogger(__name__)


def dali_serves(
    backend: Backend, device: torch.device, unsuited: Callable[[], str], faster: frozenset[str] | None = None
) -> bool:
    """Whether DALI is to be used; ValueError where it is asked for and cannot be.

    unsuited: says why DALI cannot serve the loader, or "". faster: the formats of the shards that it decodes faster
    than the CPU, as `maskstream bench --decode` measured here; None where nothing was measured. "auto" uses it on a
    CUDA device on which `make gpu` has passed, for these formats, or where nothing was measured if `make gpu` found it
    to be the fastest; without a CUDA device, where it was measured to be faster.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}; legal are 'auto', 'cpu' and 'dali'")
    if backend == "cpu" or (backend == "auto" and device.type != "cuda" and faster is None):
        return False
    there = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    lacking = "" if there else "needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'"
    if backend == "dali":
        if lacking:
            raise ValueError(f"backend='dali' {lacking}")
        return True
    reason = (f"DALI {lacking}" if lacking else "") or unsuited()
    if not reason and faster is not None and not faster:
        reason = "`maskstream bench --decode` found it to be the fastest for every format of these shards"
    if not reason and device.type == "cuda":
        reason = not_accepted(device, measured=faster is not None)
    chosen = f" for {', '.join(sorted(faster))}, which it decodes faster here" if faster and not reason else ""
    log.info(
        "backend='auto' uses %s on %s%s", "the CPU" if reason else "DALI", device, (reason and f": {reason}") or chosen
    )
    return not reason
