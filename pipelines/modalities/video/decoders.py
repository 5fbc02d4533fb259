"""Choice of the decoder on a CUDA device, by an estimate that is logged in one line.

PyAV decodes on a rank's CPU cores and sends cropped planes to the device; its speed is scaled by frames and pixels from
docs/benchmarks.md (16 frames of 340 x 256 pixels). DALI decodes on the GPU's NVDEC engines; its speed is estimated
rather than measured, so it must be faster by the factor `MARGIN`. Both are limited by the Python work of one process
under the interpreter lock (docs/gpu.md).
"""

import hashlib
import logging

import torch
import torch.distributed

from maskstream.pipelines.stream.topology import cores_of_rank

log = logging.getLogger(__name__)

ENGINES = {"H100": 7, "H200": 7, "A100": 5, "L40S": 3, "L4": 4, "T4": 2}
"""NVDEC engines of NVIDIA GPUs, by a word in their name."""
UNKNOWN_ENGINES = 4
"""Number of engines assumed for DALI's threads on other GPUs."""
THREADS_PER_ENGINE = 2
"""Each DALI thread has a separate decoder and waits for every frame, so two threads keep an engine busy."""

_PLANES_MS, _FRAMES, _PIXELS = 6.1, 16, 340 * 256
_PYTHON_MS, _RECEIVE_MS = 0.9, 0.34
"""Time per PyAV clip in the rank's process: its Python code with threads, or receiving the clip from a worker."""
_FRAME_MS = 0.4
"""Time a DALI thread needs per frame of `_PIXELS` to decode, map and synchronise; measured at 0.25 to 0.4 ms."""
_PACK_MS, _FEED_MS = 0.66, 0.53
"""Time per DALI clip in the rank's process: packing it or, with workers, feeding it (estimated)."""
MARGIN = 2.0


def name_card(device: torch.device) -> str:
    """Return the GPU's name, or "" if torch cannot determine it."""
    try:
        return str(torch.cuda.get_device_name(device))
    except (AssertionError, RuntimeError):
        return ""


def count_engines(device: torch.device) -> int | None:
    """Return the number of NVDEC engines of a CUDA device; None for a GPU that is not in `ENGINES`."""
    words = name_card(device).replace("-", " ").split()
    return next((count for name, count in ENGINES.items() if name in words), None)


def count_dali_threads(device: torch.device) -> int:
    """Return the number of DALI threads: a multiple of the GPU's engines or, without a GPU, the rank's CPU cores."""
    if device.type != "cuda":
        return cores_of_rank()
    return THREADS_PER_ENGINE * (count_engines(device) or UNKNOWN_ENGINES)


def choose_decoder(
    device: torch.device, *, workers: int, threads: int, frames: int, pixels: float, unsuited: str
) -> str:
    """Return "dali" if it is estimated to be `MARGIN` times faster than PyAV's planes, else "cpu".

    Args:
        device: Device of the batches.
        workers: Worker processes of the loader.
        threads: Threads of the loader.
        frames: Frames per clip.
        pixels: Average number of pixels per frame.
        unsuited: Why DALI cannot serve the loader, or "".
    """
    scale = frames * pixels / (_FRAMES * _PIXELS)
    used = min(cores_of_rank(), threads * max(workers, 1))
    by_cores, by_process = used * 1e3 / (_PLANES_MS * scale), 1e3 / (_RECEIVE_MS if workers else _PYTHON_MS)
    planes = min(by_cores, by_process)
    held = (
        ""
        if by_cores <= by_process
        else ", the most that one process can use"
        if workers
        else "; workers= would decode more"
    )
    engines = count_engines(device)
    dali = 0.0
    if engines is not None:
        at_engines = engines * THREADS_PER_ENGINE * 1e3 / (_FRAME_MS * _FRAMES * scale)
        dali = min(at_engines, 1e3 / (_FEED_MS if workers else _PACK_MS))
    chosen = "dali" if not unsuited and dali >= MARGIN * planes else "cpu"
    log.info(
        "backend='auto' on %s (%s): PyAV is expected to decode %.0f clips/s, in planes of up to %.1f MB, at %.1f "
        "CPU ms each on %d cores (workers=%d%s); DALI %s%s; %s",
        device,
        name_card(device) or "unnamed GPU",
        planes,
        1.5 * frames * pixels / 1e6,
        _PLANES_MS * scale,
        used,
        workers,
        held,
        f"{dali:.0f} in {engines} engines" if engines else "an unknown number, since this GPU is not in the table",
        f", but {unsuited}" if unsuited else "",
        f"using DALI, at least {MARGIN:g} times as fast" if chosen == "dali" else "using PyAV and output='yuv'",
    )
    return chosen


def check_agreement(chosen: str, loader: str) -> None:
    """Check that all ranks of torch.distributed's group have chosen the same decoder.

    The first rank stores its choice and the others compare theirs, so no rank waits for another.

    Args:
        chosen: This rank's choice.
        loader: Identifier of the loader.

    Raises:
        ValueError: Another rank has chosen differently.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    key = f"maskstream/decoder/{hashlib.sha256(loader.encode()).hexdigest()}"
    store = torch.distributed.distributed_c10d._get_default_store()
    try:
        first = store.compare_set(key, "", chosen).decode()
    except RuntimeError as error:
        log.warning("cannot check that all ranks choose the same decoder: error of the group's store: %s", error)
        return
    if first != chosen:
        raise ValueError(
            f"another rank decodes with {first} but this one with {chosen}, because their GPUs, cores or "
            "libraries differ, so their pixels would differ too; set the same backend= ('cpu' or 'dali') on "
            "every rank"
        )
