"""What datasets of known sizes cost to encode, store and read, computed from measured rates.

    python benchmarks/cost_plan.py                              the tables of docs/scaling.md
    python benchmarks/cost_plan.py --cores 64 --nodes 8 --epochs 100 --clips-per-gpu 400

Nothing is measured here. The rates are those of docs/benchmarks.md, the sizes those that the publishers of the datasets
give; set your own with the options, from `maskstream bench DATA`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

HOUR_S = 3600
PART_BYTES = 8 << 20
"""The size of a part of an upload."""
SHARD = 256
"""Sources in a shard."""


class Rate(NamedTuple):
    """What a second of media costs: cpu_s to encode it, bytes of the raw file and of the shard. Of video, at 30 frames.

    A sample that is read costs `read_cpu_s`, `read_bytes` and `read_requests`; of a long source many are read.
    """

    name: str
    cpu_s: float
    raw_bytes: float
    shard_bytes: float
    read_cpu_s: float
    read_bytes: float
    read_requests: float


TRAIN = Rate("`train`, from 340x256", 0.092, 40e3, 52.5e3, 0.0075, 159e3, 1.1)
TRAIN_1080P = Rate("`train`, from 1080p", 0.34, 500e3, 52.5e3, 0.0075, 159e3, 1.1)
COPY = Rate("`copy`, of 340x256", 0.011, 40e3, 40e3, 0.0331, 307e3, 2.0)
SOUND = Rate("audio, 44.1 kHz stereo", 0.0064, 16e3, 58e3, 0.0044, 580e3, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A dataset: its sources, the seconds of one, and the frames of a second."""

    name: str
    sources: int
    seconds: float
    rates: tuple[Rate, ...]
    fps: float = 30.0

    @property
    def media_s(self) -> float:
        """The seconds of all sources, at 30 frames a second."""
        return self.sources * self.seconds * self.fps / 30


SIZES = (
    Size(name="Kinetics-400", sources=260_000, seconds=10.0, rates=(TRAIN, TRAIN_1080P, COPY)),
    Size(name="Something-Something V2", sources=220_847, seconds=4.0, rates=(TRAIN, COPY), fps=12.0),
    Size(name="AudioSet", sources=2_084_320, seconds=10.0, rates=(SOUND,)),
    Size(name="HowTo100M", sources=1_220_000, seconds=397.0, rates=(TRAIN, COPY)),
)


def encoding(cores: int) -> Iterator[Sequence[str]]:
    """Yield table rows: the cost of writing shards."""
    yield ("dataset", "encoded as", "CPU hours", f"on {cores:,} cores", "raw", "shards", "tars", "requests")
    for size in SIZES:
        for rate in size.rates:
            cpu_h = size.media_s * rate.cpu_s / HOUR_S
            raw, made = size.media_s * rate.raw_bytes, size.media_s * rate.shard_bytes
            tars = -(-size.sources // SHARD)
            # a source is fetched by one request; a tar is sent in parts, its idx, sums and record by one request each
            requests = size.sources + tars * (made / tars / PART_BYTES + 2 + 3)
            yield (
                size.name,
                rate.name,
                f"{cpu_h:,.0f}",
                _time(cpu_h / cores),
                _bytes(raw),
                _bytes(made),
                f"{tars:,}",
                _count(requests),
            )


def reading(nodes: int, epochs: int) -> Iterator[Sequence[str]]:
    """Yield table rows: the bytes and requests of a run."""
    head = ("dataset", "samples per epoch", f"{epochs} epochs, no cache", "requests")
    yield (*head, f"cache, 1 lane, {nodes} nodes", f"cache, {nodes} lanes", "disk per node")
    for size in SIZES:
        rate = size.rates[0]
        made = size.media_s * rate.shard_bytes
        without = size.sources * rate.read_bytes * epochs
        requests = size.sources * rate.read_requests * epochs
        yield (
            f"{size.name}, {rate.name}",
            f"{size.sources:,}",
            _bytes(without),
            _count(requests),
            _bytes(min(without, made * nodes)),
            _bytes(min(without, made)),
            _bytes(made / nodes),
        )


def feeding(clips_per_gpu: Sequence[float], delay_s: float) -> Iterator[Sequence[str]]:
    """Yield table rows: the resources needed to feed a GPU at given sample rates."""
    yield ("samples/s per GPU", "stored as", "cores", "Gbit/s", "requests/s", f"in flight at {delay_s * 1e3:g} ms")
    for wanted in clips_per_gpu:
        for rate in (TRAIN, COPY, SOUND):
            requests = wanted * rate.read_requests
            yield (
                f"{wanted:,.0f}",
                rate.name.partition(",")[0],
                f"{wanted * rate.read_cpu_s:.1f}",
                f"{wanted * rate.read_bytes * 8 / 1e9:.2f}",
                f"{requests:,.0f}",
                f"{requests * delay_s:.0f}",
            )


def table(rows: Iterator[Sequence[str]]) -> str:
    """Format rows as a Markdown table; the first row is the header."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bytes(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e6:.3g} MB"


def _count(count: float) -> str:
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count:,.0f}"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"


def tables(cores: int, nodes: int, epochs: int, clips_per_gpu: Sequence[float], delay_s: float) -> list[str]:
    """Return all tables in Markdown."""
    return [table(encoding(cores)), table(reading(nodes, epochs)), table(feeding(clips_per_gpu, delay_s))]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--cores", type=int, default=256, help="cores used for encoding")
    parser.add_argument("--nodes", type=int, default=8, help="training nodes, each with a cache")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--clips-per-gpu", type=float, nargs="+", default=(100.0, 400.0), help="samples/s of one GPU")
    parser.add_argument("--delay", type=float, default=0.05, help="response time of the store in seconds")
    given = parser.parse_args(words)
    print("\n\n".join(tables(given.cores, given.nodes, given.epochs, given.clips_per_gpu, given.delay)))


if __name__ == "__main__":
    main()
