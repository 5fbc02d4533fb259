"""What fixed seeds draw, computed anew: orders, clips, crops and masks, as JSON values.

`python -m tests.pipelines.golden_vectors`, from the root of the repository, writes golden.json. It refuses while a
vector that was there is another or gone and `ORDER_VERSION` is still the same. The vector of a mask may change with the
`version` of its class instead, which is part of a loader's identity.
"""

import json
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.pipelines.augment import AUGMENTATIONS, CenterCrop, MultiScaleCrop, Native, RandomResizedCrop
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.augment.sound import Mixup, RollGain, SpecAugment
from maskstream.pipelines.augment.transform import NO_CHANGES
from maskstream.pipelines.masks import MASKS, ByEnergy, Cues, Draw, Linear, Piecewise, Random, TextMaskBatch, TokenGrid
from maskstream.pipelines.masks.core.visible import VisibleTokens
from maskstream.pipelines.modalities.audio.reader import AudioClip
from maskstream.pipelines.modalities.audio.spectrogram import Spectrogram
from maskstream.pipelines.modalities.packed.clips import NativeClips
from maskstream.pipelines.modalities.packed.native import NativeSamples
from maskstream.pipelines.modalities.packed.sounds import NativeSounds
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.energy import read_stored_energy
from maskstream.pipelines.stream.mix_order import MixOrder, MixSamples
from maskstream.pipelines.stream.order import ORDER_VERSION, GlobalBatch, Order
from maskstream.pipelines.stream.rng import Place, sample_numbers, sample_rng
from maskstream.pipelines.stream.row_mix import RowMix
from maskstream.pipelines.stream.row_order import Room, RowSamples, RowSizes
from maskstream.pipelines.stream.run_length import BudgetOrder
from maskstream.pipelines.stream.samples import SplitSamples
from maskstream.pipelines.stream.weights import BySize
from maskstream.shards.media.fbank import Fbank
from maskstream.shards.media.gop_notes import GopNotes

from .masks.mask_table import SCHEMES, Scheme, draws_of, grid_of

Vectors = dict[str, Any]

GOLDEN = Path(__file__).with_name("golden.json")
SHOWN = 20
SIZES = (5, 1, 9, 4, 7, 2, 8, 3)
SEED, EPOCH, KEY = 7, 3, "golden"
OTHER_VIEWS = ("complementary", "cropmae", "dmae", "v-jepa")
"""Masks that are about two views: their second one is stored too."""


def rng_of(purpose: str, *, epoch: int = EPOCH, view: int = 0) -> np.random.Generator:
    return sample_rng(SEED, epoch, KEY, view, purpose)


def read_golden() -> Vectors:
    """What is stored."""
    stored: Vectors = json.loads(GOLDEN.read_text())
    return stored


def golden_vectors() -> Vectors:
    """All vectors: a dict of name and value for each kind."""
    return {
        "sample_rng": generators(),
        "order": orders(),
        "clip": clips(),
        "crop": crops(),
        "sound": sounds(),
        "mask": {
            scheme.name if view == 0 else f"{scheme.name}, view {view}": mask_of(scheme, view)
            for scheme in SCHEMES
            for view in range(2 if scheme.name in OTHER_VIEWS else 1)
        },
        "stored energy": stored_energies(),
    }


def generators() -> Vectors:
    """The first draws of sample_rng."""
    names = [
        (0, 0, "", 0, "clip"),
        (7, 3, "golden", 0, "mask"),
        (7, 3, "golden", 1, "mask"),
        (7, 4, "golden", 0, "mask"),
        (8, 3, "golden", 0, "mask"),
        (7, 3, "golden", 0, "crop"),
        (2**40, 1000, "ü/a b.c", 5, "all views ratio"),
    ]
    found: Vectors = {}
    for name in names:
        rng = sample_rng(*name)
        found[" ".join(map(repr, name))] = [
            rng.integers(0, 2**32, 3).tolist(),
            rng.permutation(8).tolist(),
            float(rng.random()),
        ]
    return found


def orders() -> Vectors:
    """The first indexes of an epoch; of mixtures and of budgets with the epoch of each sample."""
    settings: dict[str, dict[str, Any]] = {
        "whole": {},
        "block=1": {"block": 1},
        "block=3": {"block": 3},
        "lanes=2": {"lanes": 2},
        "lanes=4, block=2": {"lanes": 4, "block": 2},
        "shuffle=False": {"shuffle": False},
    }
    found: Vectors = {}
    for epoch in range(2):
        for name, changes in settings.items():
            order = Order(shard_sizes=SIZES, global_batch=4, seed=SEED, **changes)
            found[f"{name}, epoch {epoch}"] = order.epoch(epoch)[:SHOWN].tolist()
        found[f"mixture, epoch {epoch}"] = stream(list(mixture().batches(epoch)))
        found[f"mixture by schedules, epoch {epoch}"] = stream(list(scheduled_mixture().batches(epoch)))
        found[f"budget, epoch {epoch}"] = stream(list(budget().batches(epoch)))
    found["mixture by schedules, counts"] = [scheduled_mixture().taken(n).tolist() for n in range(0, 64, 7)]
    fractions = replace(mixture(), samples=replace(mixture().samples, weights=(0.7, 0.3)))
    found["mixture by fractions, counts"] = [fractions.taken(n).tolist() for n in (1, 2, 7, 64, 1_000_003)]
    found["budget, sizes"] = budget().sizes().tolist()
    found["packed rows"] = packed_rows()
    found["packed rows of a mixture"] = mixed_rows()
    found["packed rows in windows"] = rows_in_windows()
    found["packed clips"], found["packed sounds"] = (draws_of_kind(of) for of in (packed_clips(), packed_sounds()))
    rng = rng_of("reserve")
    found["reserve"] = [Order(shard_sizes=SIZES, global_batch=4).reserve(0, rng), mixture().reserve(21, rng)]
    return found


class Pictures:
    """Native crops of pictures of 64 to 280 pixels, of which a quarter is visible."""

    def sizes(self, samples: GlobalBatch) -> RowSizes:
        """What they take of a row."""
        named = zip(samples.epochs.tolist(), map(str, samples.indexes.tolist()), strict=True)
        numbers = sample_numbers(SEED, named, 0, "native")
        width, height = 64 + samples.indexes * 37 % 217, 64 + samples.indexes * 91 % 217
        crops = Native(least=4, most=64).resolved(shuffle=True).crops(width, height, numbers)
        shape = np.stack([np.ones_like(crops.rows), crops.rows, crops.columns], axis=1)
        return RowSizes(shape=shape, visible=shape.prod(axis=1) // 4, target=None, pixels=width * height)

    @property
    def points_of_change(self) -> tuple[float, ...] | None:
        """None."""
        return None

    def at(self, progress: float) -> "Pictures":
        """The same."""
        return self


def mixed_rows() -> list[Any]:
    """The samples of rows that two splits share, the weight of one of which rises."""
    splits = [SplitSamples(shard_sizes=sizes, seed=seed) for seed, sizes in enumerate(((60, 40), (30,)))]
    weights = Linear(start=0.2, end=0.9), 1
    order = RowMix(
        parts=tuple(splits), weights=weights, sizers=(Pictures(),) * 2, room=Room(tokens=40), unit="tokens", seed=SEED
    ).order(2, 200)
    rows = [row for b in islice(order.batches(EPOCH, 2), 3) for row in b.packed or ()]
    return [[row.indexes.tolist(), row.epochs.tolist(), row.visible.tolist(), row.progress] for row in rows]


def rows_in_windows() -> list[Any]:
    """The number and the cost of each packed row, where the dearest of four batches share batches."""
    split = SplitSamples(shard_sizes=(60, 40), seed=SEED)
    order = RowSamples(split=split, sizer=Pictures(), room=Room(tokens=20), balance=4).order(2)
    return [
        [[int(number), row.pixels] for number, row in zip(batch.indexes, batch.packed or (), strict=True)]
        for batch in islice(chain.from_iterable(map(order.batches, count())), 8)
    ]


def packed_rows() -> list[Any]:
    """The samples of packed rows, their shapes and their visible tokens."""
    split = SplitSamples(shard_sizes=(60, 40), seed=SEED)
    order = RowSamples(split=split, sizer=Pictures(), room=Room(tokens=40, targets=130)).order(2)
    rows = chain.from_iterable(batch.packed or () for batch in islice(order.batches(EPOCH, 2), 3))
    return [[row.indexes.tolist(), row.shape[:, 1:].tolist(), row.visible.tolist()] for row in rows]


class Listed:
    """A manifest of 12 samples, of whose components the facts are made up."""

    def __init__(self, **facts: npt.NDArray[Any]) -> None:
        self.facts, self.offset = facts, np.ones(12, np.int64)

    def component(self, name: str) -> "Listed":
        return self

    def keys(self, indexes: npt.NDArray[np.int64]) -> list[str]:
        return [f"{index}" for index in indexes.tolist()]


def packed_clips() -> NativeClips:
    """Clips of 1 to 4 seconds of videos of 1 to 6."""
    numbers = np.arange(12)
    manifest = Listed(
        width=64 + numbers * 37 % 217,
        height=64 + numbers * 91 % 217,
        n_frames=24 + 13 * numbers,
        fps=np.array([24.0, 25.0, 30000 / 1001] * 4),
    )
    return NativeClips(
        manifest=manifest,  # type: ignore[arg-type]
        components=("mp4",),
        over_run=Native(tubelet=2, least=4, most=256).resolved(shuffle=True),
        native=Native(tubelet=2, least=4, most=256).resolved(shuffle=True),
        mask=None,
        fields=None,  # type: ignore[arg-type]
        seed=SEED,
        clip=VideoClip(seconds=(1, 4), fps=8, align=4),
        profile="train",
        longest=False,
        changes=NO_CHANGES,
    )


def packed_sounds() -> NativeSounds:
    """Sounds of half a second to 12 seconds."""
    numbers = np.arange(12)
    return NativeSounds(
        manifest=Listed(n_samples=8000 + 40000 * numbers, sample_rate=np.array([16000, 44100, 48000] * 4)),  # type: ignore[arg-type]
        components=("flac",),
        over_run=Native(least=16, most=512).resolved(shuffle=True),
        native=Native(least=16, most=512).resolved(shuffle=True),
        mask=None,
        fields=None,  # type: ignore[arg-type]
        seed=SEED,
        clip=AudioClip(),
        spectrogram=Spectrogram(features=Fbank(), frames=1, mean=0.0, deviation=1.0),
    )


def draws_of_kind(native: NativeSamples) -> list[Any]:
    """The shapes, the crops and the costs of 12 samples."""
    numbers = np.arange(12)
    drawn = native.draw(GlobalBatch(indexes=numbers, epochs=np.full(12, EPOCH)))
    return [drawn.shape.tolist(), drawn.crop.tolist(), drawn.pixels.tolist()]


def mixture() -> MixOrder:
    """Of two datasets, 3 to 1; the smaller one begins anew within an epoch."""
    parts = (SplitSamples(shard_sizes=(9, 11), seed=1), SplitSamples(shard_sizes=(4,), seed=2))
    return MixOrder(samples=MixSamples(parts=parts, weights=(3, 1), seed=SEED), global_batch=4)


def scheduled_mixture() -> MixOrder:
    """Of three datasets over 15 batches of 4: one comes more often each time, one less, and one ends."""
    splits = tuple(SplitSamples(shard_sizes=sizes, seed=seed) for seed, sizes in enumerate(((9, 11), (8,), (5,))))
    weights = (Linear(start=0.2, end=0.9), BySize(temperature=Piecewise(points=((0.0, 1.0), (0.5, 4.0)))), 1)
    samples = MixSamples(parts=splits, weights=weights, epochs=(None, None, 1.6), seed=SEED)
    return MixOrder(samples=samples, global_batch=4, steps=15)


def budget() -> BudgetOrder:
    """Of a ratio that falls over 12 steps."""
    order = Order(shard_sizes=SIZES, global_batch=1, seed=SEED)
    visible = VisibleTokens(parts=((Random(ratio=Linear(start=0.9, end=0.5)), grid_of(8, 8, axes="h w")),))
    return BudgetOrder(samples=order, budget=66, global_batch=2, visible=visible(12))


def stream(batches: list[GlobalBatch]) -> list[list[int]]:
    """The first indexes and epochs."""
    rows = chain.from_iterable(zip(b.indexes.tolist(), b.epochs.tolist(), strict=True) for b in batches)
    return [list(column) for column in zip(*list(rows)[:SHOWN], strict=True)]


def clips() -> Vectors:
    """Frame numbers of video clips and segments of sounds, in epochs 0 to 3."""
    videos = {
        "video": (VideoClip(), 300),
        "video, stride 3, align 4": (VideoClip(frames=8, stride=3, align=4), 300),
        "video, center": (VideoClip(frames=8, start="center"), 300),
        "video, too short": (VideoClip(frames=8), 21),
    }
    sounds = {
        "audio": (AudioClip(), 480_000, 16_000),
        "audio, 44.1 kHz": (AudioClip(seconds=2.0), 441_000, 44_100),
        "audio, center": (AudioClip(seconds=2.0, start="center"), 441_000, 44_100),
        "audio, too short": (AudioClip(), 100_000, 16_000),
    }
    found: Vectors = {}
    for name, (clip, frames) in videos.items():
        found[name] = [clip.numbers(frames, rng_of("clip", epoch=e), fps=25).tolist() for e in range(4)]
    for name, (sound, samples, rate) in sounds.items():
        found[name] = [list(sound.segment(samples, rate, rng_of("clip", epoch=e))) for e in range(4)]
    return found


def crops() -> Vectors:
    """x, y, width, height and flip of crops of 320 x 240 and 240 x 426 pixels, in epochs 0 to 3."""
    named = {name: make() for name, make in AUGMENTATIONS.items()}
    named |= {f"{name}, flip": type(augment)(flip=0.5) for name, augment in named.items()}
    named["multi-scale, square"] = MultiScaleCrop(max_distort=0, scales=(1.0, 0.5))
    named["random-resized, fallback"] = RandomResizedCrop(scale=(1.0, 1.0), ratio=(3.0, 3.0))
    named["center, always flipped"] = CenterCrop(flip=1.0)
    found: Vectors = {}
    for name, augment in named.items():
        for width, height in ((320, 240), (240, 426)):
            drawn = [augment.draw(width, height, 224, rng_of("crop", epoch=e)) for e in range(4)]
            found[f"{name}, {width} x {height}"] = [[c.x, c.y, c.width, c.height, int(c.flip)] for c in drawn]
    return found


def sounds() -> Vectors:
    """What augments a sound, in epochs 0 to 3; real numbers to 6 decimals."""
    ramp = np.arange(1, 6, dtype=np.float32)[:, None]
    found: Vectors = {"strips": [], "roll": [], "mixup": []}
    for epoch in range(4):
        found["strips"].append(SpecAugment().draw(1024, 128, rng_of("strips", epoch=epoch)).tolist())
        rolled = RollGain()(ramp, rng_of("roll", epoch=epoch))
        found["roll"].append([round(float(x), 6) for x in rolled[:, 0]])
        mixed = Mixup().draw(50, rng_of("mixup", epoch=epoch))
        found["mixup"].append(mixed and [mixed[0], round(mixed[1], 6)])
    return found


def mask_of(scheme: Scheme, view: int) -> Vectors:
    """The maps of a mask as hex of their bits, token 0 first; the target where it is not what is hidden, and the
    version of its class where that is not 1.
    """
    draws = draws_of(scheme.grid, [KEY], scheme.cues, view=view, seed=SEED, epoch=EPOCH)
    mask = MASKS[scheme.name]()
    batch = mask.draw(scheme.grid, draws)
    masked = batch.masked[0].numpy()
    count = None if batch.n_target is None else int(batch.n_target[0])
    target = np.zeros_like(masked)
    target[batch.target[0, :count].numpy()] = True
    found = {"hidden": bits(masked)}
    if not np.array_equal(target, masked):
        found["target"] = bits(target)
    if batch.mask_token is not None:
        found["mask_token"] = bits(batch.mask_token[0].numpy())
    if isinstance(batch, TextMaskBatch) and batch.attend is not None:
        found["attend (xxh3_64)"] = xxhash.xxh3_64_hexdigest(np.packbits(batch.attend[0].numpy()).tobytes())
    if mask.version != 1:
        found["version"] = mask.version
    return found


def stored_energies() -> Vectors:
    """The energy of tokens of a clip with a cut, of made-up codes of cells, and the mask that follows it."""
    grid, crop = TokenGrid.video(4, 64, 64), Crop(x=10, y=6, width=80, height=72, flip=True)
    codes = np.random.default_rng(SEED).integers(176, size=(7, 6, 7), dtype=np.uint8)
    notes = GopNotes(energy=dict(zip(range(4, 32, 4), codes, strict=True)), starts={16: True})
    energy = read_stored_energy(notes, np.array([4, 12, 20, 28]), crop, (112, 96), grid.shape[1:])
    draw = Draw.of(SEED, EPOCH, KEY, 0, Place(), Cues(energy=energy))
    masked = ByEnergy(ratio=0.75, energy="stored").draw(grid, [draw]).masked[0].numpy()
    return {"energy": energy.tolist(), "hidden": bits(masked)}


def bits(tokens: npt.NDArray[np.bool_]) -> str:
    return np.packbits(tokens).tobytes().hex()


def as_text(version: int, vectors: Vectors) -> str:
    """The file: a vector a line."""
    kinds = []
    for kind, rows in vectors.items():
        lines = (f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in rows.items())
        kinds.append(f"  {json.dumps(kind)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join([f'  "version": {version}', *kinds]) + "\n}\n"


def may_follow(new: Any, old: Any) -> bool:
    """Whether a vector may take the place of `old`: it is the same, or of a newer version of its class."""
    if isinstance(new, dict) and isinstance(old, dict) and new.get("version", 1) > old.get("version", 1):
        return True
    return bool(new == old)


def write_golden() -> None:
    """Stores the vectors of now; SystemExit where old ones changed and the version did not."""
    vectors = golden_vectors()
    stored = read_golden() if GOLDEN.exists() else {"version": None}
    if stored.pop("version") == ORDER_VERSION:
        changed = [
            f"{kind}: {name}"
            for kind, rows in stored.items()
            for name, value in rows.items()
            if not may_follow(vectors.get(kind, {}).get(name), value)
        ]
        if changed:
            raise SystemExit(f"raise ORDER_VERSION first; it is {ORDER_VERSION} and these changed: {changed}")
    GOLDEN.write_text(as_text(ORDER_VERSION, vectors))


if __name__ == "__main__":
    write_golden()
