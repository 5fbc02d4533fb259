"""What a clip costs the CPU on its way to a card: CPU ms as RGB, as planes, and packed for DALI, how much of it is
Python under the interpreter's lock, and what the process does that receives such clips of a worker.

    python benchmarks/clip_cost.py data/shards/sample/train

The ways take turns; figures are the least of several rounds.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import facts
from turns import least_ms

from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.augment import MultiScaleCrop
from maskstream.pipelines.decode import cpu
from maskstream.pipelines.modalities.row_sampler import RowSampler
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video import rows
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.packing import PackedRowMaker
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import BatchSource, Unchanged, Wanted

DATA = VideoData(clip=VideoClip(), mask=masks.Tube(), augment=MultiScaleCrop(), flow="none", output="rgb")
MOST, BATCH = 24, 8


def samplers(split: Split) -> dict[str, RowSampler[Any, Any]]:
    """What makes the host batches of each way."""
    rgb = DATA.sampler(split)
    packed = RowSampler(
        rows=PackedRowMaker(clips=rgb.rows, device="cuda"),
        manifest=split.manifest,
        fields=rgb.fields,
        seed=split.seed,
        views=1,
    )
    return {"rgb": rgb, "planes": replace(rgb, rows=replace(rgb.rows, output="yuv")), "packed": packed}


class WithoutLock:
    """Counts the CPU seconds of decoding, resizing and copying, which let go of the interpreter's lock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        take, wrapped = cpu._decoders.take, dict[int, Any]()

        def taken(*about: Any) -> Any:
            context = take(*about)
            return wrapped.setdefault(id(context), context if isinstance(context, Decoder) else Decoder(context, self))

        cpu._decoders.take = taken  # type: ignore[method-assign]
        for name in ("crop_planes", "to_rgb"):
            setattr(rows, name, self.counted(getattr(rows, name)))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""

        def run(*arguments: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - start

        return run


class Decoder:
    """A decoder whose decoding is counted."""

    def __init__(self, context: Any, counter: WithoutLock) -> None:
        self._context, self.decode = context, counter.counted(context.decode)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def received_ms(sampler: RowSampler[Any, Any], split: Split, batches: int = 24) -> float:
    """The CPU ms of this process for a clip that a worker makes, the least of some batches."""
    source = BatchSource(sampler=sampler, finish=Unchanged(), samples=split.samples, identity={})
    loader = Loader(source, batch_size=BATCH, device="cpu", workers=1, threads=1)
    stream = loader.repeat()
    next(stream)
    least = min(least_ms({"": lambda: [next(stream) for _ in range(4)]}, batches // 4).values())
    stream.close()
    loader.close()
    return least / (4 * BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    split = Split.open(arguments.data, "video", device="cpu", threads=1)
    wanted = [Wanted(index=index, epoch=0) for index in range(min(len(split.manifest), MOST))]
    ways = samplers(split)
    works = {name: lambda sampler=sampler: batch_of(sampler, wanted) for name, sampler in ways.items()}
    received = {name: received_ms(sampler, split) for name, sampler in ways.items()}
    whole = least_ms(works, arguments.rounds)
    counter = WithoutLock()
    free = dict.fromkeys(works, float("inf"))
    for _ in range(arguments.rounds):
        for name, work in works.items():
            counter.seconds = 0.0
            work()
            free[name] = min(free[name], 1e3 * counter.seconds)
    rows_ = {
        name: {
            "cpu_ms": round(whole[name] / len(wanted), 2),
            "without_lock_ms": round(free[name] / len(wanted), 2),
            "python_ms": round((whole[name] - free[name]) / len(wanted), 2),
            "received_ms": round(received[name], 2),
        }
        for name in ways
    }
    print(json.dumps({"clips": rows_, **facts(("maskstream", "av", "numpy", "torch"))}, indent=1))


if __name__ == "__main__":
    main()
