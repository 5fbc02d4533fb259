"""Clips of files as they were found are those of a loader over tars of the same files, bit by bit."""

import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from maskstream.pipelines import ClipDecoder, VideoBatch, VideoClip, augment, masks, video_loader
from maskstream.preprocess import index_tars, make_shards
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.foreign.video import demuxed_video
from maskstream.shards.errors import SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.found_video import bytes_of, open_video
from maskstream.shards.media.gops import average_rate
from maskstream.shards.media.mp4 import read_header

from ....preprocess.foreign.foreign_tars import write_tar
from ....preprocess.foreign.foreign_videos import VIDEOS, trimmed, write_video

CLIP = VideoClip(frames=4, stride=3, size=32)
FOUND = ("moov-at-end.mp4", "faststart.mp4", "fragmented.mp4", "open.mov", "open.mkv", "vp9.webm")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Videos by key.ending."""
    folder = tmp_path_factory.mktemp("media")
    videos = {f"{n}{name}": write_video(folder / name, *VIDEOS[name], seed=n) for n, name in enumerate(FOUND)}
    return videos | {"trimmed.mp4": trimmed(videos["0moov-at-end.mp4"], folder)}


@pytest.fixture(scope="module")
def indexed(media: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their index, after every keyframe has been checked."""
    folder = tmp_path_factory.mktemp("tars")
    write_tar(folder / "a.tar", list(media.items()), tarfile.USTAR_FORMAT)
    assert index_tars([folder], workers=0).rejects == {}
    return folder


def check_equal(a: VideoBatch, b: VideoBatch) -> None:
    """Every tensor of two batches is the same, but their labels."""
    assert a.key == b.key
    for name in ("video", "pts_s"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for own, other in ((a.mask, b.mask), (a.flow, b.flow), (a.tokens, b.tokens)):
        assert (own is None) == (other is None)
        for name in ("masked", "visible", "target", "weight", "vectors", "valid", "cuts", "pixels", "index"):
            if own is not None and hasattr(own, name):
                assert torch.equal(getattr(own, name), getattr(other, name)), name


@pytest.mark.parametrize(
    ("clip", "settings"),
    [
        (CLIP, {"mask": masks.Tube(ratio=0.5)}),
        (replace(CLIP, fps=8.0), {"augment": augment.CenterCrop(), "views": 2}),
        (replace(CLIP, align="gop"), {"mask": masks.Random(ratio=0.75), "output": "tokens"}),
        (CLIP, {"mask": masks.MotionGuided(ratio=0.5), "flow": "dis"}),
    ],
)
def test_clips_are_those_of_the_loader(media, indexed, clip, settings) -> None:
    loader = video_loader(
        indexed, clip=clip, patch=8, seed=5, batch_size=len(media), device="cpu", threads=1, **settings
    )
    loader.seek(2)
    (batch,) = loader
    decode = ClipDecoder(clip, patch=8, **settings)
    bodies = {name.partition(".")[0]: data for name, data in media.items()}
    keys = batch.key[:: settings.get("views", 1)]
    assert sorted(keys) == sorted(bodies)
    check_equal(batch, VideoBatch.concatenated([decode(bodies[key], key=key, seed=5, epoch=2) for key in keys]))


@pytest.mark.slow
def test_clips_are_those_of_copied_packets(media, tmp_path) -> None:
    names = ["0moov-at-end.mp4", "1faststart.mp4", "3open.mov"]
    (tmp_path / "raw").mkdir()
    for name in names:
        (tmp_path / "raw" / name).write_bytes(media[name])
    report = make_shards("folder", tmp_path / "raw", tmp_path / "out", profile=PROFILES["copy"], as_is=True, workers=0)
    folder = report.splits["train"].folder
    sources = Manifest.load(folder).sources().to_pylist()
    files = {key: media[Path(source).name] for key, source in zip(keys_of(folder), sources, strict=True)}
    (batch,) = video_loader(folder, clip=CLIP, mask=masks.Tube(ratio=0.5), patch=8, batch_size=3, device="cpu", seed=1)
    decode = ClipDecoder(CLIP, mask=masks.Tube(ratio=0.5), patch=8)
    check_equal(batch, VideoBatch.concatenated([decode(files[key], key=key, seed=1) for key in batch.key]))


def test_members_of_shards_have_the_flow_of_their_vectors(split: Path) -> None:
    clip = VideoClip(frames=4, stride=4, size=32)
    mask = masks.MotionGuided(ratio=0.5)
    manifest = Manifest.load(split)
    loader = video_loader(
        split, clip=clip, mask=mask, patch=8, batch_size=4, device="cpu", threads=1, seed=1, flow="codec"
    )
    decode = ClipDecoder(clip, mask=mask, patch=8, profile=manifest.info["profile"])
    numbers = {manifest.key(i): i for i in range(len(manifest))}
    seen = 0
    for batch in loader:
        members = [manifest.store.read(*manifest.member(numbers[key], "mp4")) for key in batch.key]
        assert all(len(open_video(*bytes_of(data)).fragments) > 1 for data in members)
        made = [decode(data, key=key, seed=1) for data, key in zip(members, batch.key, strict=True)]
        check_equal(batch, VideoBatch.concatenated(made))
        seen += len(made)
    assert seen >= 4


def keys_of(folder: Path) -> list[str]:
    """The keys of a split."""
    manifest = Manifest.load(folder)
    return manifest.keys(range(len(manifest)))


def later(pts: int) -> int:
    """Times of a variable rate."""
    return pts + pts // 2048 * 137


@pytest.mark.parametrize(
    ("options", "time", "by_table"),
    [
        ({"movflags": "negative_cts_offsets"}, None, True),
        ({"use_editlist": "0"}, None, True),
        ({"video_track_timescale": "30000"}, None, True),
        ({"movflags": "faststart+rtphint"}, None, True),
        ({"movflags": "hybrid_fragmented"}, None, True),
        ({"movflags": "cmaf+frag_keyframe"}, None, False),
        ({}, later, True),
        ({}, lambda pts: pts + 51200, True),
        ({}, lambda pts: pts - 1024, False),
    ],
)
def test_tables_say_what_ffmpeg_demuxes(media, tmp_path, options, time, by_table) -> None:
    """Positions, times, keyframes and rate of a video with sound, in the forms that MP4 has for them."""
    path = tmp_path / "written.mp4"
    with av.open(io.BytesIO(media["3open.mov"])) as source, av.open(str(path), "w", options=options) as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                if time and packet.stream.type == "video":
                    packet.pts, packet.dts = time(packet.pts), time(packet.dts) - 600
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    data = path.read_bytes()
    wanted, found = demuxed_video(data), open_video(*bytes_of(data))
    assert found.index.fps == float(average_rate(wanted.ticks, wanted.time_base, wanted.rate))
    assert np.array_equal(
        found.packets.pts / found.track.timescale, wanted.packets.pts / read_header(wanted.header).timescale
    )
    names = ("size", "keyframe", "shown", *(("start",) if by_table else ()))
    for name in names:
        assert np.array_equal(getattr(found.packets, name), getattr(wanted.packets, name)), name
    assert by_table == np.array_equal(found.packets.start, wanted.packets.start)


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    size_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.size_bytes += len(found)
        return found


def test_bytes_paths_and_files_are_alike_and_a_file_is_read_in_parts(media, tmp_path) -> None:
    data = media["0moov-at-end.mp4"]
    path = tmp_path / "found.mp4"
    path.write_bytes(data)
    file = Counted(data)
    decode = ClipDecoder(VideoClip(frames=2, stride=2, size=32), mask=masks.Tube())
    wanted = decode(data, key="a", epoch=1)
    for source in (bytearray(data), memoryview(data), path, str(path), file):
        check_equal(wanted, decode(source, key="a", epoch=1))
    assert 0 < file.size_bytes < len(data) / 2


def test_it_has_no_state(media) -> None:
    decode = ClipDecoder(CLIP, mask=masks.Tube(ratio=0.5))
    data = media["0moov-at-end.mp4"]
    keys = [str(n) for n in range(12)]
    alone = [decode(data, key=key) for key in keys]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(lambda key: pickle.loads(pickle.dumps(decode))(data, key=key), keys))
    for a, b in zip(alone, at_once, strict=True):
        check_equal(a, b)
    assert not torch.equal(alone[0].video, alone[1].video)


def test_what_is_no_video_is_an_error_of_the_sample(media, tmp_path) -> None:
    data = media["1faststart.mp4"]
    decode = ClipDecoder(CLIP)
    for bad, why in (
        (b"", "is empty"),
        (data[: len(data) // 2], "is truncated: its packets end at byte"),
        (b"#EXTM3U\nhttp://example.org/a.ts\n", "is a text file or a playlist"),
        (bytes(1000), "is not an mp4, mov, mkv or webm file"),
    ):
        with pytest.raises(SampleError, match=why) as caught:
            decode(bad, key="k")
        assert (caught.value.key, caught.value.shard) == ("k", "bytes")
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "none.mp4", key="k")
    with pytest.raises(ValueError, match="is not a file but a folder"):
        decode(tmp_path, key="k")
    with pytest.raises(SampleError, match="has 50 frames, fewer than the clip"):
        ClipDecoder(VideoClip(frames=60, stride=1, size=32, short="skip"))(data, key="k")
    with pytest.raises(ValueError, match="work only with splits"):
        ClipDecoder(CLIP, output="yuv")
    with pytest.raises(ValueError, match="motion vectors can serve as flow only in the profiles"):
        ClipDecoder(CLIP, flow="codec")


def test_damaged_files_give_frames_or_errors_of_the_sample(media, split) -> None:
    """Bytes of the table are overwritten, and files cut: nothing but SampleError may come of it."""
    manifest = Manifest.load(split)
    rng, decode, errors = np.random.default_rng(0), ClipDecoder(CLIP), 0
    for data in (media["0moov-at-end.mp4"], media["1faststart.mp4"], manifest.store.read(*manifest.member(0, "mp4"))):
        moov = data.index(b"moov")
        for _ in range(40):
            forged = bytearray(data)
            for at in rng.integers(moov, min(moov + 1500, len(data)), size=rng.integers(1, 4)):
                forged[at] = rng.choice([0, 1, 0x7F, 0xFF, int(rng.integers(256))])
            try:
                decode(bytes(forged[: len(data) if rng.random() < 0.8 else int(rng.integers(len(data)))]), key="k")
            except SampleError:
                errors += 1
    assert errors > 30


def test_a_rotated_video_is_refused(media) -> None:
    data = bytearray(media["1faststart.mp4"])
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    with av.open(io.BytesIO(bytes(data))) as container:
        assert next(container.decode(video=0)).rotation != 0
    with pytest.raises(SampleError, match="is rotated by its metadata"):
        ClipDecoder(CLIP)(bytes(data), key="k")
