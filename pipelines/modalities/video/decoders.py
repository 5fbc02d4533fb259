"""Which decoder the clips of a loader on a CUDA device get: by arithmetic, which the log prints in one line.

PyAV decodes in the cores of a rank and hands cropped planes to the device. Its time is that of docs/benchmarks.md for
16 frames of 340 x 256 pixels, and follows frames and pixels. DALI decodes with the card's NVDEC engines. What it takes
of a card is estimated, since no card has run it, so it has to win by `MARGIN`. Either is held up by what one process
does under the interpreter's lock (docs/gpu.md).
"""

import hashlib
import logging

import torch
import torch.distributed

from maskstream.pipelines.stream.topology import cores_of_rank

log = logging.getLogger(__name__)

ENGINES = {"H100": 7, "H200": 7, "A100": 5, "L40S": 3, "L4": 4, "T4": 2}
"""NVDEC engines of NVIDIA's cards, by the word in a card's name."""
UNKNOWN_ENGINES = 4
"""What DALI's threads are made for on another card."""
THREADS_PER_ENGINE = 2
"""Each thread of DALI has a decoder of its own and waits for every frame, so two keep an engine busy."""

_PLANES_MS, _FRAMES, _PIXELS = 6.1, 16, 340 * 256
_PYTHON_MS, _RECEIVE_MS = 0.9, 0.34
"""What the process of a rank takes for each clip of PyAV's: its own Python in threads, or receiving it of a worker."""
_FRAME_MS = 0.4
"""What a thread of DALI takes for a frame of `_PIXELS`, decoding, mapping and synchronising: 0.25 to 0.4 ms."""
_PACK_MS, _FEED_MS = 0.66, 0.53
"""What it takes for each clip of DALI's: packing it, or with workers feeding it, which is estimated."""
MARGIN = 2.0


def name_card(device: torch.device) -> str:
    """The name of a CUDA device's card, "" where torch cannot tell it."""
    try:
        return str(torch.cuda.get_device_name(device))
    except (AssertionError, RuntimeError):
        return ""


def count_engines(device: torch.device) -> int | None:
    """The NVDEC engines of a CUDA device's card; None for a card that is not in `ENGINES`."""
    words = name_card(device).replace("-", " ").split()
    return next((count for name, count in ENGINES.items() if name in words), None)


def count_dali_threads(device: torch.device) -> int:
    """The threads of DALI: a multiple of the card's engines, or without a card the cores of this rank."""
    if device.type != "cuda":
        return cores_of_rank()
    return THREADS_PER_ENGINE * (count_engines(device) or UNKNOWN_ENGINES)


def choose_decoder(
    device: torch.device, *, workers: int, threads: int, frames: int, pixels: float, unsuited: str
) -> str:
    """ "dali" where the arithmetic says that it makes `MARGIN` times the clips of PyAV's planes, else "cpu".

    workers, threads: those of the loader. frames: of a clip. pixels: of a frame, on average.
    unsuited: why DALI cannot serve the loader, in words, or "".
    """
    scale = frames * pixels / (_FRAMES * _PIXELS)
    used = min(cores_of_rank(), threads * max(workers, 1))
    by_cores, by_process = used * 1e3 / (_PLANES_MS * scale), 1e3 / (_RECEIVE_MS if workers else _PYTHON_MS)
    planes = min(by_cores, by_process)
    held = "" if by_cores <= by_process else ", all that one process takes" if workers else "; workers= would make more"
    engines = count_engines(device)
    dali = 0.0
    if engines is not None:
        at_engines = engines * THREADS_PER_ENGINE * 1e3 / (_FRAME_MS * _FRAMES * scale)
        dali = min(at_engines, 1e3 / (_FEED_MS if workers else _PACK_MS))
    chosen = "dali" if not unsuited and dali >= MARGIN * planes else "cpu"
    log.info(
        "backend='auto' on %s (%s): PyAV is expected to make %.0f clips/s, planes of %.1f MB or less, %.1f CPU ms each "
        "in %d cores (workers=%d%s); DALI %s%s; %s",
        device,
        name_card(device) or "a card without a name",
        planes,
        1.5 * frames * pixels / 1e6,
        _PLANES_MS * scale,
        used,
        workers,
        held,
        f"{dali:.0f} in {engines} engines" if engines else "an unknown number, since this card's engines are unknown",
        f", but {unsuited}" if unsuited else "",
        f"DALI is taken, at {MARGIN:g} times PyAV or more" if chosen == "dali" else "PyAV and output='yuv' are taken",
    )
    return chosen


def check_agreement(chosen: str, loader: str) -> None:
    """ValueError if another rank of torch.distributed's group has chosen otherwise for the same loader.

    The first rank writes its choice down and the others compare theirs, so no rank waits for another. loader: says
    which loader it is.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    key = f"maskstream/decoder/{hashlib.sha256(loader.encode()).hexdigest()}"
    store = torch.distributed.distributed_c10d._get_default_store()
    try:
        first = store.compare_set(key, "", chosen).decode()
    except RuntimeError as error:
        log.warning("whether all ranks choose the same decoder is not known: the group's store says %s", error)
        return
    if first != chosen:
        raise ValueError(
            f"another rank makes its pixels by {first}, and this one by {chosen}, because cards, cores or libraries "
            "differ, and the pixels would too; give every rank the same backend= ('cpu' or 'dali')"
        )
