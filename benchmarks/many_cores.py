"""How many clips a second one process can make, however many cores it has: what Python does under its lock.

    python benchmarks/many_cores.py data/shards/sample/train [--threads 1,8,32,64] [--workers 1] [--seconds 6]

A machine of many cores is simulated. Each call that decodes or converts, and lets go of the lock meanwhile, is made
once; whenever the same clip comes again, the thread sleeps for the CPU time of that call instead, and gets what it
gave. So threads take no core while they "decode", but come back for the lock as often as they would. What is left is
the work of the process itself: its CPU time for a clip says how many it can make at most, also on a busy machine, and
the rate says how many it made.

With --workers the clips are made in worker processes, and both are said of the process that receives them, and of a
worker.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import facts

from maskstream.pipelines import VideoClip, video_loader
from maskstream.pipelines.augment import MultiScaleCrop
from maskstream.pipelines.decode import cpu
from maskstream.pipelines.modalities.video import rows

BATCH, CLIPS = 16, 256
CONVERTING = ("crop_planes", "to_rgb")
"""The functions of `rows` that convert without the lock."""
_known: dict[tuple[Any, ...], tuple[float, Any]] = {}
_compiled: set[str] = set()


def once(key: tuple[Any, ...], call: Callable[[], Any]) -> Any:
    """What the call gives; a key that is known sleeps for its CPU time."""
    if (known := _known.get(key)) is not None:
        time.sleep(known[0])
        return known[1]
    _known[key] = timed(call)
    return _known[key][1]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """The CPU seconds of a call, and what it gives."""
    start = time.thread_time()
    found = call()
    return time.thread_time() - start, found


class Decoder:
    """A decoder that decodes each clip once. The packets since its last flush are its state, and those that it has not
    been given are given to it when one comes that is new.
    """

    def __init__(self, context: Any) -> None:
        self._context, self._state, self._left = context, 0, list[Any]()

    def decode(self, packet: Any) -> Any:
        self._state = hash((self._state, None if packet is None else (packet.pts, packet.size)))
        key = (self._context.extradata, self._state)
        if key in _known:
            self._left.append(packet)
            return once(key, lambda: None)
        for one in self._left:
            self._context.decode(one)
        self._left.clear()
        _known[key] = timed(lambda: self._context.decode(packet))
        return _known[key][1]

    def flush_buffers(self) -> None:
        self._state = 0
        self._left.clear()
        self._context.flush_buffers()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def install() -> None:
    """Replaces the decoder and what converts, in this process."""
    take = cpu._Decoders.take

    def taken(self: Any, *about: Any) -> Any:
        found = take(self, *about)
        return found if isinstance(found, Decoder) else Decoder(found)

    cpu._Decoders.take = taken  # type: ignore[method-assign]
    for name in CONVERTING:
        convert = getattr(rows, name)

        def converted(frames: Any, *about: Any, convert: Any = convert) -> Any:
            if convert.__name__ not in _compiled:
                convert(frames, *about)
                _compiled.add(convert.__name__)
            return once((id(frames[0]), convert.__name__), lambda: convert(frames, *about))

        setattr(rows, name, converted)


def measured(data: Path, threads: int, workers: int, seconds: float) -> dict[str, float]:
    """Clips a second, and the CPU ms of a clip in this process and in its workers."""
    loader = video_loader(
        data,
        clip=VideoClip(),
        augment=MultiScaleCrop(),
        batch_size=BATCH,
        threads=threads,
        workers=workers,
        prefetch=2 + 2 * threads // BATCH,
        device="cpu",
    )

    def some() -> int:
        """The same clips each time."""
        loader.seek(0)
        return sum(len(batch.key) for batch in islice(loader.repeat(), -(-CLIPS // BATCH)))

    some()
    some()
    cpu_s, wall, clips = cpu_of_all(), time.perf_counter(), 0
    while time.perf_counter() - wall < seconds:
        clips += some()
    taken, wall = [now - before for now, before in zip(cpu_of_all(), cpu_s, strict=True)], time.perf_counter() - wall
    loader.close()
    own, theirs = (1e3 * one / clips for one in taken)
    return {
        "threads": threads,
        "workers": workers,
        "clips_per_s": clips / wall,
        "cpu_ms": own,
        "workers_cpu_ms": theirs,
    }


def cpu_of_all() -> tuple[float, float]:
    """CPU seconds of this process and of its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time(), ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", default="1,8,32,64", help="threads to try, separated by commas")
    parser.add_argument("--workers", type=int, default=0, help="worker processes, each with so many threads")
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:  # where workers find what replaces their decoder
        (Path(folder) / "sitecustomize.py").write_text(
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport many_cores\nmany_cores.install()\n"
        )
        os.environ["PYTHONPATH"] = folder
        install()
        found = []
        for threads in map(int, arguments.threads.split(",")):
            row = measured(arguments.data, threads, arguments.workers, arguments.seconds)
            found.append({name: round(value, 3) for name, value in row.items()})
            most = [f"{1e3 / row[name]:.0f}" for name in ("cpu_ms", "workers_cpu_ms") if row[name]]
            print(f"{found[-1]}: at most {' and '.join(most)} clips/s a process", file=sys.stderr, flush=True)
    print(json.dumps({"rows": found, **facts(("av", "numpy", "torch"))}))


if __name__ == "__main__":
    main()
