"""The flow into GOPs, from preprocessing to the loader, and vectors joined over two and three frames."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from maskstream.pipelines.augment import Crop
from maskstream.pipelines.decode.cpu import DecodedFrames, decode_frames, to_rgb
from maskstream.pipelines.flow import ClipFlow, Codec, DecodedClip, Dis
from maskstream.preprocess.encode.video.video import PROFILES, EncodedVideo, encode_video
from maskstream.shards.media.gop_notes import KeyFlow, gop_notes, note_box, pack_flow, with_box
from maskstream.shards.media.mp4 import Mp4Error
from maskstream.shards.members.video import find_video_decode_problems, find_video_problems, video_member

from ...videos import write_frames
from ..clips import block_grids

WIDTH, HEIGHT, FRAMES = 192, 144, 72
SPEED = np.array([-1.25, 0.75])
GROWTH = 1.004
MOTIONS = ("pan", "zoom")
CROP = Crop(x=20, y=4, width=128, height=128, flip=True)


def texture() -> np.ndarray:
    noise = np.random.default_rng(0).random((400, 500, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2) + 0.5 * cv2.GaussianBlur(noise, (0, 0), 9)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), dtype=np.uint8)


def pose(motion: str, t: int) -> np.ndarray:
    """From the texture to frame t."""
    grow = GROWTH**t if motion == "zoom" else 1.0
    shift = SPEED * t if motion == "pan" else np.zeros(2)
    return np.array([[grow, 0, WIDTH / 2 - 250 * grow + shift[0]], [0, grow, HEIGHT / 2 - 200 * grow + shift[1]]])


def wanted(motion: str, stride: int, crop: Crop, size: int) -> np.ndarray:
    """The backward flow on a grid of cells of 8 pixels, which is the same for all pairs."""
    at = (np.arange(size // 8) + 0.5) * 8 / size
    places = np.stack(np.meshgrid(crop.x + at * crop.width, crop.y + at * crop.height), axis=-1)
    if motion == "pan":
        flow = np.broadcast_to(-SPEED * stride, places.shape)
    else:
        flow = (places - (WIDTH / 2, HEIGHT / 2)) * (GROWTH**-stride - 1)
    scaled = flow * (size / crop.width, size / crop.height)
    return scaled[:, ::-1] * (-1, 1) if crop.flip else scaled


@pytest.fixture(scope="module")
def videos(tmp_path_factory: Any) -> dict[str, EncodedVideo]:
    made = {}
    for motion in MOTIONS:
        path: Path = tmp_path_factory.mktemp("raw") / f"{motion}.mkv"
        frames = (
            cv2.warpAffine(texture(), pose(motion, t), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC) for t in range(FRAMES)
        )
        write_frames(path, frames, "ffv1")
        made[motion] = encode_video(path, PROFILES["train"])
        assert encode_video(path, PROFILES["train"]).data == made[motion].data
    return made


def decoded(video: EncodedVideo, numbers: np.ndarray, vectors_of: np.ndarray | None = None) -> DecodedFrames:
    head = video.index.header_size
    rest = memoryview(video.data)[head:]
    stored = gop_notes(rest, WIDTH, HEIGHT).flows
    return decode_frames(
        video.data[:head], rest, 0, numbers, size=(WIDTH, HEIGHT), vectors_of=vectors_of, stored=stored
    )


def flow_of(video: EncodedVideo, numbers: np.ndarray, *, old: bool = False) -> ClipFlow:
    """The codec's flow of a clip; old: as shards without stored flow give it."""
    source = Codec()
    found = decoded(video, numbers, source.vectors_of(numbers))
    pixels = np.empty((len(numbers), 112, 112, 3), dtype=np.uint8)
    to_rgb(found.frames, CROP, (112, 112), pixels)
    kept = {n: v for n, v in found.vectors.items() if not (old and isinstance(v, KeyFlow))}
    return source.of_clip(DecodedClip(pixels=pixels, crop=CROP, source=(WIDTH, HEIGHT), frames=numbers, vectors=kept))


@pytest.mark.parametrize("last", [4, 8], ids=["one kind", "two kinds"])
def test_clips_together_have_the_flow_that_each_has_alone(videos: dict[str, EncodedVideo], last: int) -> None:
    pan, zoom = (videos[motion] for motion in MOTIONS)
    plain, repeating, cut = np.arange(0, 24, 4), np.array([4, 8, 12, 12, 16, 20]), last * np.arange(1, 7)
    clips = []
    for video, numbers, flip in ((pan, plain, False), (zoom, repeating, True), (pan, cut, False)):
        found = decoded(video, numbers, Codec().vectors_of(numbers))
        pixels = np.empty((len(numbers), 112, 112, 3), dtype=np.uint8)
        to_rgb(found.frames, CROP, (112, 112), pixels)
        ends = {number: number == cut[2] for number in range(0, FRAMES, 4)} if numbers is cut else {}
        clips.append(
            DecodedClip(
                pixels=pixels,
                crop=replace(CROP, flip=flip),
                source=(WIDTH, HEIGHT),
                frames=numbers,
                vectors={n: own for n, own in found.vectors.items() if numbers is not cut or n != cut[1]},
                starts=ends,
            )
        )
    for together, clip in zip(Codec().of_each(clips), clips, strict=True):
        alone = Codec().of_clip(clip)
        np.testing.assert_array_equal(together.vectors, alone.vectors)
        np.testing.assert_array_equal(together.valid, alone.valid)
        assert together.valid.any()
        assert (None if together.cuts is None else together.cuts.tolist()) == (
            [False, True, False, False, False] if clip.frames is cut else None
        )


def errors(flow: ClipFlow, motion: str, stride: int) -> np.ndarray:
    """The mean distance per pair, away from the border."""
    distance = np.linalg.norm(flow.vectors - wanted(motion, stride, CROP, 112), axis=-1)
    return np.asarray(distance[:, 2:-2, 2:-2].mean((1, 2)))


@pytest.mark.parametrize("motion", MOTIONS)
def test_pairs_at_the_start_of_a_gop_are_as_good_as_others(videos: dict[str, EncodedVideo], motion: str) -> None:
    numbers = np.arange(0, FRAMES, 4)
    starts = np.isin(numbers[1:], videos[motion].index.first_frame)
    assert starts.sum() == 2
    flow = flow_of(videos[motion], numbers)
    error = errors(flow, motion, 4)
    assert flow.valid[starts].mean() > 0.9
    assert error[starts].max() < max(1.25 * error[~starts].mean(), 0.15)
    old = flow_of(videos[motion], numbers, old=True)
    assert not old.valid[starts].any()
    np.testing.assert_array_equal(old.vectors[~starts], flow.vectors[~starts])
    pixels = np.empty((len(numbers), 112, 112, 3), dtype=np.uint8)
    to_rgb(decoded(videos[motion], numbers).frames, CROP, (112, 112), pixels)
    clip = DecodedClip(pixels=pixels, crop=CROP, source=(WIDTH, HEIGHT), frames=numbers, vectors={})
    np.testing.assert_array_equal(old.vectors[starts], Dis().of_clip(clip).vectors[starts])


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("stride", [8, 12])
def test_vectors_are_joined_at_longer_strides(videos: dict[str, EncodedVideo], motion: str, stride: int) -> None:
    flow = flow_of(videos[motion], np.arange(0, FRAMES, stride))
    true = np.linalg.norm(wanted(motion, stride, CROP, 112), axis=-1).mean()
    assert errors(flow, motion, stride).max() < 0.12 * true
    assert flow.valid.mean() > 0.8


def test_joining_is_that_of_opencv(videos: dict[str, EncodedVideo]) -> None:
    """Where all blocks have vectors, against cv2.remap of one frame's vectors along the other's."""
    numbers = np.array([4, 12])
    found = decoded(videos["zoom"], numbers, np.array([8, 12]))
    earlier, later = (block_grids([found.vectors[n]], WIDTH, HEIGHT)[0] for n in (8, 12))
    r, c = np.indices(later.shape[:2]).astype(np.float32)
    at = [c + later[..., 0] / 8, r + later[..., 1] / 8]
    fetched = cv2.remap(earlier, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    known = (later[..., 2] == 1) & (fetched[..., 2] > 0.999)
    assert known.mean() > 0.6
    crop = Crop(x=0, y=0, width=128, height=128)
    flow = Codec().of_clip(
        DecodedClip(
            pixels=np.zeros((2, 128, 128, 3), np.uint8),
            crop=crop,
            source=(WIDTH, HEIGHT),
            frames=numbers,
            vectors=found.vectors,
        )
    )
    joined = (later + fetched)[:16, :16, :2]
    inside = known[:16, :16]
    assert np.abs(flow.vectors[0] - joined)[inside].max() < 0.1  # remap rounds places to 1/32


def test_a_short_video_repeats_its_last_frame(videos: dict[str, EncodedVideo]) -> None:
    flow = flow_of(videos["pan"], np.array([48, 56, 64, 64, 64]))
    assert not flow.vectors[2:].any()
    assert flow.valid[2:].all()
    assert errors(flow, "pan", 8)[:2].max() < 1


def test_players_see_the_frames_that_they_would_without_it(videos: dict[str, EncodedVideo]) -> None:
    video = videos["pan"]
    index, data = video.index, video.data
    plain, shown = [data[: index.header_size]], []
    for offset, size, first in zip(index.offset, index.size, index.first_frame, strict=True):
        fragment = data[offset : offset + size]
        flow = gop_notes(memoryview(fragment), WIDTH, HEIGHT).flows
        assert list(flow) == ([first] if first else [])
        if first:
            box = note_box(pack_flow(flow[first]))
            assert len(box) == 34 + 3 * 9 * 12
            plain.append(shifted(fragment.replace(box, b""), -len(box)))
            assert with_box(plain[-1], box) == fragment
        else:
            plain.append(fragment)
    for each in (data, b"".join(plain)):
        with av.open(io.BytesIO(each)) as container:
            shown.append([(f.pts, f.to_ndarray().tobytes()) for f in container.decode(video=0)])
    assert shown[0] == shown[1]
    assert len(shown[0]) == FRAMES


def shifted(fragment: bytes, by: int) -> bytes:
    """The fragment whose packets begin `by` bytes later; it has one run of packets."""
    at = fragment.index(b"trun") + 12
    offset = int.from_bytes(fragment[at : at + 4], "big") + by
    return fragment[:at] + offset.to_bytes(4, "big") + fragment[at + 4 :]


def test_the_beginning_of_a_run_is_enough(videos: dict[str, EncodedVideo]) -> None:
    video = videos["pan"]
    data = video.data[video.index.header_size :]
    begin = int(video.index.offset[2]) - video.index.header_size
    cut = data[: begin + 1200]
    assert gop_notes(memoryview(cut), WIDTH, HEIGHT, len(data)).flows.keys() == {32, 64}
    with pytest.raises(Mp4Error):
        gop_notes(memoryview(cut)[: begin + 200], WIDTH, HEIGHT, len(data))


def test_other_profiles_have_none(tmp_path: Path, videos: dict[str, EncodedVideo]) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(videos["pan"].data)
    for profile in ("copy", "fps"):
        made = encode_video(path, PROFILES[profile])
        assert not gop_notes(memoryview(made.data), WIDTH, HEIGHT).flows
    assert encode_video(path, PROFILES["copy"]).index.n_frames == FRAMES


def test_a_damaged_flow_is_refused_and_reported(videos: dict[str, EncodedVideo]) -> None:
    video = videos["pan"]
    assert not list(find_video_problems(video_member(video.data, video.index)))
    assert not list(find_video_decode_problems(video_member(video.data, video.index)))
    at = video.data.index(b"maskstream key f") + 16
    for place, value in ((0, 2), (1, 8), (3, 99), (5, 0)):
        broken = bytearray(video.data)
        broken[at + place] = value
        assert any("the flow of a GOP has" in p for p in find_video_problems(video_member(bytes(broken), video.index)))
        with pytest.raises(Mp4Error, match="needs version 1, distance 4 and 9 x 12 cells"):
            gop_notes(memoryview(broken), WIDTH, HEIGHT)
    box = note_box(pack_flow(KeyFlow(frame=8, planes=np.zeros((3, 9, 12), np.int8))))
    short = bytearray(box[:30])
    short[:4] = (30).to_bytes(4, "big")
    with pytest.raises(Mp4Error, match="but its header alone has 26"):
        gop_notes(memoryview(short), WIDTH, HEIGHT)
    foreign = (16 + 8 + 4).to_bytes(4, "big") + b"uuid" + bytes(20)
    assert gop_notes(memoryview(foreign + box), WIDTH, HEIGHT).flows.keys() == {8}


def test_a_box_comes_back() -> None:
    rng = np.random.default_rng(0)
    flow = KeyFlow(frame=96, planes=rng.integers(-128, 128, (3, 9, 12), dtype=np.int8))
    back = gop_notes(memoryview(note_box(pack_flow(flow))), WIDTH, HEIGHT).flows[96]
    assert np.array_equal(back.vectors, flow.vectors)
    assert np.array_equal(back.kept, flow.kept)
    assert back.distance == 4
