"""The stored energy of tokens, from preprocessing to the mask, beside references pixel by pixel."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.augment import Crop, RandomResizedCrop
from maskstream.pipelines.masks import ByEnergy
from maskstream.pipelines.masks.patterns.token_energy import token_energy
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.energy import read_stored_energy
from maskstream.preprocess.encode.video.encoder import write_clip
from maskstream.preprocess.encode.video.notes import DEAD_ZONE, measure_cell_energy
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.shards.errors import DataError, ResumeError
from maskstream.shards.format.sample import Sample
from maskstream.shards.media.gop_notes import (
    GopNotes,
    encode_energy,
    energies_of_codes,
    gop_notes,
    note_box,
    pack_energy,
)
from maskstream.shards.media.mp4 import Mp4Error
from maskstream.shards.members.video import find_video_problems, video_member

from ...splits import write_samples
from .test_cuts import scene

WITH_ENERGY = replace(PROFILES["train"], energy=True)
STORED = ByEnergy(ratio=0.75, energy="stored")
DATA = VideoData(
    clip=VideoClip(frames=8, stride=4, size=64),
    augment=RandomResizedCrop(flip=0.5),
    patch=16,
    mask=STORED,
)


def flickering(seed: int, cut: int) -> list[np.ndarray]:
    """64 frames of a scene that stands still, and of another from `cut` on, before which something flickers."""
    rng, scenes = np.random.default_rng(seed), [scene(2 * seed, 90), scene(2 * seed + 1, 140)]
    frames = [scenes[t >= cut][:96, :96].copy() for t in range(64)]
    for t, frame in enumerate(frames):
        frame[16 + t // 2 : 48 + t // 2, 40:72] = np.kron(rng.integers(60, 200, (4, 4, 1)), np.ones((8, 8, 3)))
    return frames


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two videos, the second with a cut before frame 32, with and without stored energy."""
    raw = tmp_path_factory.mktemp("raw")
    made: dict[str, Any] = {}
    for number, cut in enumerate((64, 30)):
        path = write_clip(flickering(number, cut), raw / f"{number}.mkv", fps=30)
        made[f"{number}"], made[f"{number} plain"] = (
            encode_video(path, one) for one in (WITH_ENERGY, PROFILES["train"])
        )
    return made


def written(folder: Any, films: list[Any], settings: dict[str, Any]) -> Any:
    members = [{"mp4": video_member(film.data, film.index)} for film in films]
    samples = [Sample(key=str(n), members=own, source=f"{n}.mkv") for n, own in enumerate(members)]
    return write_samples(folder, samples, "video", dataset="e", settings=settings)


@pytest.fixture(scope="module")
def split(films: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = {"encoder": {"video": {"energy": True}}}
    return written(tmp_path_factory.mktemp("stored"), [films["0"], films["1"]], settings)


def notes_of(film: Any) -> GopNotes:
    return gop_notes(memoryview(film.data)[film.index.header_size :], film.index.width, film.index.height)


def opened(data: VideoData, folder: Any) -> Any:
    return data.loader(folder, batch_size=2, device="cpu", threads=1, seed=3)


def test_codes_are_floats_of_three_bits() -> None:
    table = energies_of_codes()
    values = np.concatenate([np.arange(4096), 2 ** np.arange(12, 31), np.geomspace(1, 2**31 - 1, 999).astype(np.int64)])
    back = table[encode_energy(values)]
    assert (back[:16] == np.arange(16)).all()
    assert (np.abs(back - values) <= values / 16).all()
    assert (np.diff(table[: int(encode_energy(np.array([2**31 - 1]))[0]) + 1]) > 0).all()


def test_cells_have_what_the_moved_plane_leaves() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.integers(256, size=(2, 40, 48), dtype=np.uint8)
    motion = rng.integers(-12, 13, (6, 6, 2)).astype(np.float32)
    wanted = np.zeros((3, 3), dtype=np.int64)
    for y in range(40):
        for x in range(48):
            u, v = motion[y // 8, x // 8]
            was = before[np.clip(y + int(v), 0, 39), np.clip(x + int(u), 0, 47)]
            wanted[y // 16, x // 16] += max(abs(int(now[y, x]) - int(was)) - DEAD_ZONE, 0) ** 2
    assert (measure_cell_energy(now, before, motion) == wanted).all()


def test_tokens_have_their_part_of_cells() -> None:
    codes = np.random.default_rng(1).integers(176, size=(8, 6, 7), dtype=np.uint8)
    notes = GopNotes(energy=dict(zip(range(4, 36, 4), codes, strict=True)), starts={20: True})
    pixels = energies_of_codes()[codes].repeat(16, axis=1).repeat(16, axis=2) / 256
    numbers = np.array([4, 12, 16, 24, 24, 32])
    for crop in (Crop(x=6, y=10, width=80, height=60), Crop(x=32, y=0, width=40, height=20, flip=True)):
        own = pixels[:, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        own = own.reshape(8, 5, crop.height // 5, 4, crop.width // 4).sum((2, 4)) * 20
        own = own[:, :, ::-1] if crop.flip else own
        wanted = np.stack([own[1] + own[2], own[1] + own[2], own[3], own[7] * 0, own[0] * 0, own[6] + own[7]])
        found = read_stored_energy(notes, numbers, crop, (112, 96), (5, 4))
        np.testing.assert_allclose(found, wanted, atol=1)
    with pytest.raises(DataError, match=r"no stored energy for frames \[36\]"):
        read_stored_energy(notes, np.array([32, 36]), crop, (112, 96), (5, 4))


def test_anchors_have_maps_and_packets_are_as_without(films: dict[str, Any]) -> None:
    for name in "01":
        film, plain = films[name], films[f"{name} plain"]
        assert notes_of(film).energy.keys() == set(range(4, 64, 4))
        assert not notes_of(plain).energy
        assert notes_of(film).starts == notes_of(plain).starts
        assert not list(find_video_problems(video_member(film.data, film.index)))
        assert 0 < len(film.data) - len(plain.data) < 0.1 * len(plain.data)
        assert film.data[-4000:] == plain.data[-4000:]
    energy = {n: float(energies_of_codes()[codes].sum()) for n, codes in notes_of(films["1"]).energy.items()}
    assert max(energy, key=energy.__getitem__) == 32  # where the scene begins


def test_a_damaged_map_is_refused(films: dict[str, Any]) -> None:
    film = films["0"]
    at = film.data.index(b"maskstream energ") + 16
    for place, value, words in (
        (0, 2, "version 2"),
        (5, 9, "6 x 6 cells fit"),
        (3, 9, "at least"),
        (12, 0, "dam"),
    ):
        broken = bytearray(film.data)
        broken[at + place] = value
        assert any(words in problem for problem in find_video_problems(video_member(bytes(broken), film.index)))
    box = note_box(pack_energy(8, [np.zeros((6, 6), np.uint8)]))
    assert gop_notes(memoryview(box), 96, 96).energy.keys() == {8}
    with pytest.raises(Mp4Error, match="but its header alone has 28"):
        gop_notes(memoryview((30).to_bytes(4, "big") + box[4:30]), 96, 96)


def test_stored_masks_hold_nearly_the_energy_of_online_ones(split: Any) -> None:
    online = replace(DATA, mask=replace(STORED, energy="online"))
    for one, other in zip(opened(DATA, split), opened(online, split), strict=True):
        assert one.flow is None
        for row in range(2):
            flow = other.flow
            energy = token_energy(
                other.video[row].numpy(),
                flow.vectors[row].numpy(),
                flow.cuts[row].numpy(),
                tubelet=2,
                patch=16,
            ).ravel()
            kept, best = (energy[~batch.mask.masked[row].numpy()].sum() for batch in (one, other))
            assert kept >= 0.9 * best > 0.6 * energy.sum()
        assert (one.video == other.video).all()


def test_tokens_views_and_resumes(split: Any) -> None:
    data = replace(DATA, views=2, output="tokens")
    batch, whole = (next(iter(opened(one, split))) for one in (data, replace(data, output="rgb")))
    assert (batch.mask.masked == whole.mask.masked).all()
    cubes = whole.video.reshape(4, 4, 2, 4, 16, 4, 16, 3).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(4, 64, -1)
    for row, index in enumerate(batch.tokens.index):
        assert (batch.tokens.pixels[row] == cubes[row][index]).all()
    state = opened(data, split).state_dict()
    opened(data, split).load_state_dict(state)
    with pytest.raises(ResumeError, match=r"data\.mask\.energy: saved stored, here online"):
        opened(replace(data, mask=replace(STORED, energy="online")), split).load_state_dict(state)


def test_what_has_no_stored_energy_is_refused(films: dict[str, Any], split: Any, tmp_path: Any) -> None:
    plain = written(tmp_path, [films["0 plain"]], {})
    with pytest.raises(ValueError, match=r"maskstream shards DATASET --set video\.energy=true"):
        opened(DATA, plain)
    assert next(iter(opened(replace(DATA, mask=masks.Tube()), split))).key
    for clip, words in (
        (VideoClip(frames=8, stride=2, size=64), "stride 2"),
        (VideoClip(frames=8, align=2, size=64), "align 2"),
        (VideoClip(frames=8, fps=8, size=64), "8 frames a second, of videos of 30, .* at most 7.5 frames a second"),
        (VideoClip(frames=8, fps=6, size=64, align=2), "align 2; pass at most 7.5 frames a second without align"),
        (VideoClip(frames=8, size=64, short="loop"), "goes back in time"),
    ):
        with pytest.raises(ValueError, match=words):
            DATA.__class__(clip=clip, mask=STORED).resolved(Split.open(split, "video", device="cpu", threads=1, seed=0))
    with pytest.raises(ValueError, match="which only splits have"):
        DATA.of_files("train")
    with pytest.raises(ValueError, match="only the residual is stored"):
        replace(STORED, motion=1.0)
    with pytest.raises(ValueError, match="only the profiles train and fast"):
        replace(PROFILES["copy"], energy=True)
    with pytest.raises(ValueError, match=r"images have only frames"):
        ImageData(mask=STORED)
