"""A transform of one's own: every loader with pixels or sounds calls it, the same at every topology, and names it."""

import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from maskstream import Transform
from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.augment.transform import find_transform
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.config import Config, with_set
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.features import drop_augmentation

from ..contract import check_order
from ..every_modality import LOADERS, write_split

WITH_PIXELS = ("audio", "audiovisual", "image", "image-text", "packed", "packed-audio", "packed-video", "trajectory")
HERE = __name__


@dataclass(frozen=True, kw_only=True, slots=True)
class Inverted(Transform):
    """Inverts frames and waveforms with the probability `p`."""

    p: float = 0.5

    def change_frames(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        assert frames.ndim == 4
        assert frames.shape[3] == 3
        assert frames.dtype == np.uint8
        return 255 - frames if rng.random() < self.p else frames

    def change_waveform(self, waveform: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        assert waveform.ndim == 2
        assert waveform.dtype == np.float32
        if rng.random() < self.p:
            waveform *= -0.5  # in place: the sound that views share is not changed
        return waveform


@dataclass(frozen=True, kw_only=True, slots=True)
class Grey(Transform):
    """Makes frames grey, in place."""

    def change_frames(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        frames[:] = frames.mean(axis=3, keepdims=True).astype(np.uint8)
        return frames


@dataclass(frozen=True, kw_only=True, slots=True)
class Quiet(Transform):
    """Halves a waveform."""

    def change_waveform(self, waveform: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        return waveform / np.float32(2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing(Transform):
    """Changes in place, and forgets to return."""

    def change_frames(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> Any:
        frames[:] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Floats(Transform):
    """Returns another type."""

    def change_frames(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> Any:
        return frames / 255


class Left:
    """Has the methods alone."""

    def change_frames(self, frames: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        return frames


@pytest.fixture(scope="module", params=[*WITH_PIXELS, "video"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write_split(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("video", tmp_path_factory.mktemp("clips"))


PLAIN = VideoData(clip=VideoClip(frames=4, stride=1, size=32), patch=8, views=2)


def first(data: VideoData, split: Path, **options: Any) -> Any:
    loader = data.loader(split, batch_size=2, seed=3, device="cpu", rank=0, world_size=1, threads=1, **options)
    batch = next(iter(loader))
    loader.close()
    return batch


def batches(kind: tuple[str, Path], transform: Transform | str | None) -> list[Any]:
    """The values of the samples of two batches."""
    modality = LOADERS[kind[0]]
    loader = modality.loader(kind[1], transform=transform, seed=5, threads=1, device="cpu", batch_size=6)
    return [modality.rows(batch) for batch in islice(loader, 2)]


def test_every_loader_with_pixels_or_sounds_applies_it(kind: tuple[str, Path]) -> None:
    plain, changed = batches(kind, None), batches(kind, Inverted())
    assert plain != changed
    assert batches(kind, f"{HERE}:Inverted") == changed
    assert batches(kind, Inverted(p=0.0)) == plain, "it draws of its own, so that nothing else changes"


def test_it_is_the_same_on_other_ranks_and_after_a_stop(kind: tuple[str, Path]) -> None:
    modality, split = LOADERS[kind[0]], kind[1]
    run = partial(modality.loader, split, transform=Inverted(), seed=5, threads=1, device="cpu")
    check_order(run, modality.rows, batch_size=6)


@pytest.mark.slow
def test_it_is_the_same_in_worker_processes(clips: Path) -> None:
    run = partial(LOADERS["video"].loader, clips, transform=Inverted(), seed=5, threads=1, device="cpu")
    check_order(run, batch_size=6, workers=2)


def test_frames_are_changed_after_the_crop_and_by_view(clips: Path) -> None:
    plain, changed = (first(replace(PLAIN, transform=one), clips).video.numpy() for one in (None, Inverted()))
    inverted = [np.array_equal(after, 255 - before) for before, after in zip(plain, changed, strict=True)]
    same = [np.array_equal(after, before) for before, after in zip(plain, changed, strict=True)]
    assert [a or b for a, b in zip(inverted, same, strict=True)] == [True] * 4
    assert 0 < sum(inverted) < 4
    grey = first(replace(PLAIN, transform=Grey()), clips).video.numpy()
    assert np.array_equal(grey, np.repeat(plain.mean(axis=4, keepdims=True).astype(np.uint8), 3, axis=4))


def test_visible_tokens_are_those_of_the_changed_frames(clips: Path) -> None:
    data = replace(PLAIN, views=1, mask=masks.Tube(ratio=0.75), transform=Grey())
    whole, tokens = first(data, clips), first(replace(data, output="tokens"), clips).tokens
    cubes = whole.video.numpy().reshape(2, 2, 2, 4, 8, 4, 8, 3).transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(2, 32, -1)
    for row, index in enumerate(whole.mask.visible.numpy()):
        assert np.array_equal(cubes[row][index], tokens.pixels[row].numpy().reshape(len(index), -1))


def test_masks_follow_the_changed_frames(clips: Path) -> None:
    data = replace(PLAIN, views=1, mask=masks.ByEnergy(ratio=0.75, energy="online"))
    with_it = first(replace(data, transform=Grey()), clips).mask.visible
    assert with_it.shape == first(data, clips).mask.visible.shape


def test_a_loader_without_one_has_the_identity_that_it_had() -> None:
    assert "transform" not in PLAIN.to_dict(identity=True)
    assert replace(PLAIN, transform=Inverted()).to_dict(identity=True)["transform"] == {"kind": f"{HERE}:Inverted"}
    assert replace(PLAIN, transform=f"{HERE}:Inverted") == replace(PLAIN, transform=Inverted())
    made = with_set(PLAIN, [f"transform.kind={HERE}:Inverted", "transform.p=0.25"])
    assert made.transform == Inverted(p=0.25)
    assert with_set(PLAIN, [f"transform={HERE}:Inverted"]).transform == Inverted()
    assert Config.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_resume_with_another_is_refused_by_name(clips: Path) -> None:
    def loader(transform: Transform | None) -> Any:
        data = replace(PLAIN, transform=transform)
        return data.loader(clips, batch_size=2, device="cpu", rank=0, world_size=1, threads=0)

    state = json.loads(json.dumps(loader(Inverted(p=0.25)).state_dict()))
    loader(Inverted(p=0.25)).load_state_dict(state)
    with pytest.raises(ResumeError, match=r"transform\.p: saved 0\.25, here 0\.5"):
        loader(Inverted()).load_state_dict(state)
    with pytest.raises(ResumeError, match=rf"transform: saved {HERE}:Inverted\(p=0\.25\), here None"):
        loader(None).load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "dali"}, "a transform runs on the CPU, but backend='dali' does not"),
        ({"backend": "torchcodec"}, "a transform runs on the CPU, but backend='torchcodec' does not"),
        ({"output": "yuv"}, "output='yuv' leaves the conversion to RGB to the device, but a transform needs RGB"),
        ({"transform": Quiet()}, r"this loader calls change_frames, which .*:Quiet does not define"),
        ({"transform": Left()}, "transform must be"),
        (
            {"augment": Left()},
            r"augment must be.*make\ Left\ a\ subclass\ of\ maskstream\.pipelines\.augment\.crop\.Augmentation",
        ),
        ({"transform": Transform}, r"transform must be.*pass\ an\ instance,\ Transform\(\.\.\.\)"),
        ({"transform": "Inverted"}, r"transform='Inverted' is not a Transform; .* or its package\.module:Name"),
        ({"transform": f"{HERE}:Invreted"}, "has no 'Invreted', did you mean 'Inverted'"),
        ({"transform": f"{HERE}:Left"}, "is not a Transform"),
    ],
)
def test_what_cannot_be_applied_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **({"transform": Grey()} | changes))


def test_a_loader_of_sounds_takes_one_of_waveforms_alone() -> None:
    assert find_transform(Quiet(), waveform=True) == Quiet()
    assert find_transform(Quiet(), frames=True, waveform=True) == Quiet()
    with pytest.raises(ValueError, match=r"this loader calls change_waveform, which .*:Grey does not define"):
        find_transform(Grey(), waveform=True)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("transform", "got"), [(Nothing(), "NoneType"), (Floats(), r"float64 \(4, 32, 32, 3\)")])
def test_another_shape_or_type_is_an_error_that_names_both(
    clips: Path, transform: Transform, got: str, workers: int
) -> None:
    with pytest.raises(ValueError, match=rf"returned {got}; it must return an array uint8 \(4, 32, 32, 3\)"):
        first(replace(PLAIN, transform=transform), clips, workers=workers)


def test_features_are_of_samples_without_it(clips: Path) -> None:
    changed = replace(PLAIN, transform=Inverted())
    assert drop_augmentation(changed, Manifest.load(str(clips))) == drop_augmentation(PLAIN, Manifest.load(str(clips)))
