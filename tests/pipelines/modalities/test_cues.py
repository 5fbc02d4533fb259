"""Masks that follow what a batch shows: each loader gives the cues that are asked for, and they are the batch's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from maskstream.pipelines import masks
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.flow import Lk
from maskstream.pipelines.masks import Cues, Draw, Mask, TokenGrid
from maskstream.pipelines.masks.core import maps_of
from maskstream.pipelines.masks.patterns.token_energy import token_energy
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.packing import unsuited
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.loader import Loader
from maskstream.shards.format.manifest import Manifest

from ..contract import check_order
from ..every_modality import AUDIO, AUDIOVISUAL, IMAGE, IMAGE_TEXT, TRAJECTORY, VIDEO, write_split

FOLLOWED = ("frames", "depth", "waveform", "spectrogram")
SEEN: list[tuple[str, Cues]] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class Lowest(Mask):
    """Hides half of the tokens: those whose part of a cue, cut into as many pieces, has the lowest sum."""

    of: str = "frames"
    more: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.of, *self.more})

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        SEEN.append((f"{draw.key} {draw.view} {draw.part}", draw.cues))
        return lowest(draw.cues.need(self.of, by="Lowest"), grid.size)


def lowest(values: npt.NDArray[Any], tokens: int) -> npt.NDArray[np.bool_]:
    """Which half of so many pieces has the lowest sums, bool (tokens,)."""
    sums = [piece.astype(np.float64).sum() for piece in np.array_split(values.ravel(), tokens)]
    return np.argsort(np.argsort(sums, kind="stable"), kind="stable") < tokens // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Unnamed(Mask):
    """Reads frames that it does not ask for."""

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return draw.cues.frames.mean(axis=(0, 3)).ravel()[: grid.size] > 9  # type: ignore[union-attr]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking(Mask):
    """Asks for what the test says."""

    needs: Any = frozenset()  # type: ignore[assignment]

    def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
        return np.zeros(grid.size, dtype=np.bool_)


DATA: dict[str, type[DataConfig[Any]]] = {
    "audio": AudioData,
    "audiovisual": AudioVisualData,
    "image": ImageData,
    "image-text": ImageTextData,
    "trajectory": TrajectoryData,
    "video": VideoData,
}
SETTINGS = {
    "audio": AUDIO,
    "audiovisual": AUDIOVISUAL | {"noise": None, "spectrogram_noise": None},
    "image": IMAGE,
    "image-text": IMAGE_TEXT,
    "trajectory": TRAJECTORY,
    "video": VIDEO,
}


@pytest.fixture(scope="module")
def split_named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The split of a modality, made once."""
    made: dict[str, Path] = {}

    def named(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_split(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return named


def data_of(kind: str, changes: dict[str, Any]) -> DataConfig[Any]:
    return DATA[kind](**SETTINGS[kind] | changes)


def opened(kind: str, split: Path, changes: dict[str, Any], **options: Any) -> Loader[Any]:
    settings = {"seed": 5, "threads": 1, "device": "cpu", "batch_size": 6} | options
    return data_of(kind, changes).loader(split, **settings)


@pytest.mark.parametrize(
    ("kind", "field", "cue"),
    [
        ("video", "mask", "frames"),
        ("image", "mask", "frames"),
        pytest.param(*("image-text", "image_mask", "frames"), marks=pytest.mark.slow),
        ("audio", "mask", "waveform"),
        ("audio", "mask", "spectrogram"),
        pytest.param(*("trajectory", "mask", "frames"), marks=pytest.mark.slow),
        pytest.param(*("trajectory", "mask", "depth"), marks=pytest.mark.slow),
        pytest.param(*("audiovisual", "video_mask", "frames"), marks=pytest.mark.slow),
        pytest.param(*("audiovisual", "video_mask", "spectrogram"), marks=pytest.mark.slow),
        pytest.param(*("audiovisual", "audio_mask", "frames"), marks=pytest.mark.slow),
        pytest.param(*("audiovisual", "audio_mask", "waveform"), marks=pytest.mark.slow),
    ],
)
def test_a_mask_follows_what_its_row_of_the_batch_shows(
    split_named: Callable[[str], Path], kind: str, field: str, cue: str
) -> None:
    SEEN.clear()
    changes: dict[str, Any] = {field: Lowest(of=cue)}
    if kind != "image-text":
        changes["views"] = 2
    batch = next(iter(opened(kind, split_named(kind), changes, batch_size=3)))
    mask, tensor = getattr(batch, field), {"frames": "image" if "image" in kind else "video"}.get(cue, cue)
    for row, hidden in enumerate(mask.masked):
        assert hidden.tolist() == lowest(getattr(batch, tensor)[row].numpy(), mask.grid.size).tolist()
    for _, cues in SEEN:
        value = cues.need(cue, "the test")
        assert value.ndim == {"frames": 4, "depth": 3, "waveform": 2, "spectrogram": 2}[cue]
        assert not value.flags.writeable
        assert [name for name in FOLLOWED if getattr(cues, name) is not None] == [cue], (
            "only what is asked for is given"
        )


def rows(batch: Batch) -> list[tuple[str, str]]:
    return [(key, str(row.tolist())) for key, row in zip(batch.key, batch.mask.masked, strict=True)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_masks_of_pixels_are_the_same_at_every_topology_and_after_a_resume(
    split_named: Callable[[str], Path], workers: int
) -> None:
    changes = {"mask": Lowest(), "colour": ColourJitter(), "flow": "none"}
    check_order(partial(opened, "video", split_named("video"), changes), rows, batch_size=6, workers=workers)


def test_masks_of_frames_and_flow_of_batches_are_drawn_of_both(split_named: Callable[[str], Path]) -> None:
    changes = {"mask": Lowest(more=("flow",)), "flow": Lk()}
    batch = next(iter(opened("video", split_named("video"), changes)))
    assert batch.flow is not None
    for row, hidden in enumerate(batch.mask.masked):
        assert hidden.tolist() == lowest(batch.video[row].numpy(), batch.mask.grid.size).tolist()
    SEEN.clear()
    alone = next(iter(opened("video", split_named("video"), {"mask": Lowest(), "flow": Lk()})))
    assert torch.equal(alone.mask.masked, batch.mask.masked)
    assert all(cues.flow is None for _, cues in SEEN), "drawn while the sample is made"


@pytest.mark.parametrize("flow", ["dis", "lk"])
def test_masks_by_energy_are_those_of_the_clips_and_the_flow_of_a_batch(
    split_named: Callable[[str], Path], flow: str
) -> None:
    batch = next(iter(opened("video", split_named("video"), {"mask": masks.ByEnergy(ratio=0.5), "flow": flow})))
    grid, moved = batch.mask.grid, batch.flow
    assert moved is not None
    for row, hidden in enumerate(batch.mask.masked):
        energy = token_energy(
            batch.video[row].numpy(),
            moved.vectors[row].numpy(),
            moved.cuts[row].numpy(),
            tubelet=grid.patch[0],
            patch=grid.patch[1],
        ).ravel()
        assert int(hidden.sum()) == grid.size // 2
        assert energy[~hidden.numpy()].min() >= energy[hidden.numpy()].max()


def test_on_a_device_pixels_are_made_where_the_mask_is_drawn(split_named: Callable[[str], Path]) -> None:
    split = replace(Split.open(split_named("video"), "video", device="cpu"), device=torch.device("cuda"))
    clip = VideoData(**VIDEO)
    for mask, flow, output in (
        (masks.Tube(), "none", "yuv"),
        (Lowest(), "none", "rgb"),
        (masks.Padded(mask=Lowest()), Lk(), "rgb"),
        (Lowest(more=("flow",)), Lk(), "yuv"),
    ):
        data = replace(clip, mask=mask, flow=flow).resolved(split)
        assert data.output == output
        told = unsuited(data.rows(split), Manifest.load(split_named("video")), split.device, "dali")
        assert ("needs the frames of each sample" in told) is (output == "rgb")
    with pytest.raises(ValueError, match=r"output='yuv' with mask=Lowest.*, which needs the RGB frames .*output='rgb'"):
        replace(clip, mask=Lowest(), flow="none", output="yuv").source(split)


@pytest.mark.parametrize(
    ("kind", "field"), [("audio", "mask"), pytest.param("audiovisual", "audio_mask", marks=pytest.mark.slow)]
)
def test_spectrograms_are_made_where_a_mask_follows_them(
    split_named: Callable[[str], Path], kind: str, field: str
) -> None:
    split = replace(Split.open(split_named(kind), kind, device="cpu"), device=torch.device("cuda"))
    data = data_of(kind, {})
    assert data.resolved(split).on_device
    follows = replace(data, **{field: Lowest(of="spectrogram")})
    assert not follows.resolved(split).on_device
    assert replace(data, **{field: Lowest(of="waveform")}).resolved(split).on_device
    with pytest.raises(ValueError, match=r"needs the spectrogram of each sample.*use on_device='auto'"):
        replace(follows, on_device=True)
    if kind == "audio":
        with pytest.raises(ValueError, match=r"needs the spectrogram of each sample.*leave out backend='dali'"):
            replace(follows, backend="dali")


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (
            "video",
            {"mask": Lowest(of="depth")},
            "needs depth, but videos have only cuts, energy, flow, frames; use a different mask",
        ),
        (
            "video",
            {"mask": Asking(needs={"pixels"})},
            "needs pixels, which is not a mask input; choose from frames, depth",
        ),
        ("video", {"mask": Asking(needs={"frame"})}, "needs frame, which is not a mask input, did you mean 'frames'?"),
        (
            "video",
            {"mask": Asking(needs="frames")},
            "`needs` must be a set of names, got 'frames'; set needs = frozenset",
        ),
        ("image", {"mask": Lowest(of="spectrogram")}, "needs spectrogram, but images have only frames"),
        ("audio", {"mask": Lowest()}, "needs frames, but sounds have only spectrogram, waveform"),
        ("trajectory", {"mask": Lowest(of="depth"), "depth": False}, "walks that are read with depth=False have only"),
        ("audiovisual", {"audio_mask": Lowest(of="flow")}, "sounds of clips have only frames, spectrogram, waveform"),
        (
            "video",
            {"mask": Unnamed(), "flow": "none"},
            "Unnamed() reads the mask input frames, which is not in its `needs`, and got None ('NoneType' object has "
            "no attribute 'mean'); set needs = frozenset({'frames'})",
        ),
    ],
)
def test_a_cue_that_is_not_there_is_told_in_a_sentence(
    split_named: Callable[[str], Path], kind: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError) as told:  # noqa: PT011
        next(iter(opened(kind, split_named(kind), changes)))
    assert said in str(told.value)
    assert len(str(told.value)) < 300


def test_what_a_mask_gets_wrong_itself_is_not_told_as_a_missing_cue() -> None:
    class Wrong(Asking):
        def hide(self, grid: TokenGrid, draw: Draw) -> npt.NDArray[np.bool_]:
            return grid.nothing  # type: ignore[attr-defined,no-any-return]

    with pytest.raises(AttributeError, match="nothing"):
        maps_of(Wrong(), TokenGrid(), Draw(rng=np.random.default_rng(0)))


@pytest.mark.parametrize("mask", [masks.Shared, masks.Complementary])
@pytest.mark.parametrize("cue", FOLLOWED)
def test_masks_of_several_views_follow_no_pixels_of_one(mask: type[masks.Shared], cue: str) -> None:
    with pytest.raises(ValueError, match=f"Lowest reads {cue}, which differs from view to view"):
        mask(mask=Lowest(of=cue))
