"""Tars that others wrote: every frame as a plain decode gives it, few bytes read, exact resume, and nothing silent."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace

import av
import numpy as np
import pytest
from webdataset import TarWriter

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.pipelines.decode.cpu import decode_frames
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.sample import ClipRequest, VideoSampler, clip_ranges
from maskstream.pipelines.stream.place import START
from maskstream.preprocess import index_tars
from maskstream.preprocess.encode.reject import RejectError
from maskstream.preprocess.foreign.video import index_video
from maskstream.preprocess.foreign.video_entries import candidates, decoded, exact_entries
from maskstream.preprocess.foreign.video_packets import demuxed_video
from maskstream.shards.errors import DatasetError, ResumeError, StoreError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ...pipelines.recording import check_what_is_read, recorded
from ...web_server import serving
from .foreign_tars import rejects, write_tar

N_FRAMES = 50
H264 = {"g": "16", "preset": "veryfast"}
OPEN = "open-gop=1:scenecut=0:bframes=3"
VIDEOS = {
    "moov-at-end.mp4": ("libx264", {**H264, "bf": "3"}, {}),
    "faststart.mp4": ("libx264", H264, {"movflags": "faststart"}),
    "fragmented.mp4": ("libx264", H264, {"movflags": "frag_keyframe+empty_moov"}),
    "open.mov": ("libx264", {**H264, "x264-params": OPEN}, {}),
    "open.mkv": ("libx265", {"preset": "ultrafast", "x265-params": f"{OPEN}:keyint=16:log-level=none"}, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "16", "deadline": "realtime", "cpu-used": "8"}, {}),
    "av1.mkv": ("libsvtav1", {"g": "16", "preset": "12", "svtav1-params": "lp=1"}, {}),
    "av1.mp4": ("libsvtav1", {"g": "16", "preset": "12", "svtav1-params": "lp=1"}, {}),
}


def write_video(path, codec, options, muxer, *, seed=0):
    """A moving texture with a sound track that is interleaved with it."""
    rng = np.random.default_rng(seed)
    texture = np.repeat(np.repeat(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), 4, 0), 4, 1)
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac" if path.suffix in (".mp4", ".mov") else "libopus", rate=48000)
        for i in range(N_FRAMES):
            picture = np.ascontiguousarray(np.roll(texture, (i, 2 * i), (0, 1)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            noise = rng.normal(0, 0.1, (1, 1920)).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48000, 1920 * i
            container.mux(sound.encode(tone))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path.read_bytes()


def trimmed(data, tmp_path):
    """The same packets with an edit list that hides the first five frames."""
    path = tmp_path / "trimmed.mp4"
    with av.open(io.BytesIO(data)) as source, av.open(str(path), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts -= 5 * 512
                packet.dts -= 5 * 512
                packet.stream = copy
                container.mux(packet)
    return path.read_bytes()


def plain_frames(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def member(manifest, i):
    return manifest.store.read(*manifest.member(i, "video"))


def sampler(manifest):
    clip = VideoClip(frames=4, stride=2, size=32)
    return VideoSampler(
        manifest=manifest, clip=clip, grid=None, augment=None, pattern=None, flow=None, seed=0, component="video"
    )


def requested(manifest, i, numbers):
    video = manifest.video(i)
    ranges = clip_ranges(video, numbers, manifest.member(i, "video"))
    return ClipRequest(index=i, epoch=0, place=START, key="", video=video, numbers=numbers, crops=[], ranges=ranges)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """The bytes of each of VIDEOS, and of one with an edit list."""
    folder = tmp_path_factory.mktemp("media")
    videos = {name: write_video(folder / name, *how, seed=n) for n, (name, how) in enumerate(VIDEOS.items())}
    return videos | {"trimmed.mp4": trimmed(videos["moov-at-end.mp4"], folder)}


@pytest.fixture(scope="module")
def tars(media, tmp_path_factory):
    """Two tars: by webdataset's own writer with json labels, and of GNU form with names that USTAR cannot hold."""
    folder = tmp_path_factory.mktemp("tars")
    names = list(media)
    with TarWriter(str(folder / "a-000.tar"), encoder=False) as tar:
        for n, name in enumerate(names[:5]):
            key, _, component = name.replace("open.m", "open_m").partition(".")
            label = json.dumps({"label": "wave" if n % 2 else "jump", "caption": "a texture"}).encode()
            tar.write({"__key__": f"{key}{n}", (component or "mkv"): media[name], "json": label})
    long = "folder/" * 30
    members = [(f"{long}{name}", media[name]) for name in names[5:] if name != "av1.mkv"]
    members += [(f"{long}other.MKV", media["av1.mkv"]), (f"{long}other.cls", b"sit\n")]
    write_tar(folder / "b-000.tar", members, tarfile.GNU_FORMAT)
    return folder


@pytest.fixture(scope="module")
def split(tars):
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tars.glob("*.tar")}
    report = index_tars([tars], workers=0)
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tars.glob("*.tar")}
    assert (report.folder, report.tars, report.samples, report.rejects) == (tars, 2, 9, {})
    assert before == after
    return tars


def test_frames_are_those_of_a_plain_decode_at_every_start(split):
    manifest = Manifest.load(split)
    reader = sampler(manifest)
    assert {manifest.video(i).codec for i in range(9)} == {"h264", "hevc", "vp9", "av1"}
    assert any(manifest.video(i).lead.any() for i in range(9))
    for i in range(len(manifest)):
        video, data = manifest.video(i), member(manifest, i)
        frames = plain_frames(data)
        assert video.n_frames == len(frames)
        assert len(video.first_frame) >= 3
        for stride in (1, 3, 7):
            for start in range(0, video.n_frames - 3 * stride):
                numbers = start + stride * np.arange(4)
                request = requested(manifest, i, numbers)
                got = reader.read(request)
                decoded = decode_frames(
                    got.header,
                    memoryview(got.fragments),
                    got.first_frame,
                    numbers,
                    size=(video.width, video.height),
                    packets=got.packets,
                )
                for frame, number in zip(decoded.frames, numbers, strict=True):
                    assert np.array_equal(frame.to_ndarray(), frames[number]), (manifest.key(i), number)
                assert np.allclose(decoded.pts_s, numbers / 25, atol=0.0011)
                first, stop = video.gops_of(numbers)
                needed = video.offset[stop - 1] + video.size[stop - 1] - video.offset[first]
                records = 24 * int(video.packets[first:stop].sum())
                assert got.size_bytes <= 1.1 * (video.header_size + records + needed)


def test_a_request_names_all_that_is_read(split):
    opened, store = recorded(split, "video")
    data = VideoData(clip=VideoClip(frames=4, stride=2, size=32))
    check_what_is_read(data.source(opened).sampler, store, len(opened.manifest))


def test_an_edit_list_hides_frames(split, media):
    manifest = Manifest.load(split)
    i = next(i for i in range(9) if manifest.key(i).endswith("trimmed"))
    assert manifest.video(i).n_frames == N_FRAMES - 5
    assert manifest.video(i).packets.sum() == N_FRAMES


def test_labels_keys_and_components(split):
    manifest = Manifest.load(split)
    assert manifest.info["profile"] == "foreign"
    assert manifest.info["label_names"] == ["jump", "sit", "wave"]
    assert manifest.label.tolist() == [0, 2, 0, 2, 0, -1, -1, -1, 1]
    assert manifest.key(8) == "folder/" * 30 + "other"
    assert {name: c.kind for name, c in manifest.components.items()} == {
        "video": "video",
        "json": "json",
        "cls": "text",
    }
    video = manifest.component("video")
    assert {video.ending(i) for i in range(9)} == {"mp4", "mkv", "webm"}
    assert video.ending(8) == "mkv"


def test_the_loader_resumes_exactly(split):
    def loader():
        clip = VideoClip(frames=4, stride=2, size=32)
        return video_loader(split, clip=clip, mask=masks.Tube(ratio=0.5), batch_size=2, seed=3, device="cpu")

    whole = list(loader())
    stopped = loader()
    batches = iter(stopped)
    assert [next(batches).key for _ in range(3)] == [batch.key for batch in whole[:3]]
    resumed = loader()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    rest = list(resumed)
    assert [batch.key for batch in rest] == [batch.key for batch in whole[3:]]
    for ours, theirs in zip(rest, whole[3:], strict=True):
        assert np.array_equal(ours.video.numpy(), theirs.video.numpy())
        assert np.array_equal(ours.mask.masked.numpy(), theirs.mask.masked.numpy())


def test_verify_finds_the_split_sound(split):
    report = verify(split, decode=True)
    assert (report.problems, report.samples) == ([], 9)


@pytest.mark.parametrize("suffix", [".tar", ".packets", ".idx"])
def test_verify_notices_what_changed_after_indexing(split, tmp_path, suffix):
    folder = tmp_path / "copy"
    shutil.copytree(split, folder)
    path = folder / f"a-000{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any(problem.startswith("a-000.tar: ") for problem in verify(folder).problems)
    path.unlink()
    assert any("cannot be read" in one or "is missing" in one for one in verify(folder).problems)


def test_a_member_that_changed_is_one_bad_sample(split, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(split, folder)
    os.truncate(folder / "b-000.tar", 700)
    clip = VideoClip(frames=4, stride=2, size=32)
    loader = video_loader(folder, clip=clip, batch_size=1, shuffle=False, device="cpu", max_bad_fraction=1.0)
    assert len(list(loader)) == 9
    assert loader.stats()["bad"] > 0


def test_the_index_may_lie_elsewhere_and_is_the_same_at_any_number_of_workers(tars, tmp_path):
    shutil.copytree(tars, tmp_path / "raw", ignore=shutil.ignore_patterns("*.p*", "*.json", "*.idx", "*.sums"))
    listed = sorted(path.name for path in (tmp_path / "raw").iterdir())
    names = [tmp_path / "raw" / "b-000.tar", tmp_path / "raw" / "a-000.tar"]
    for number in (0, 2):
        index_tars(names[:: 1 if number else -1], tmp_path / f"index{number}", workers=number)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / f"index{n}").glob("*.*") if path.suffix != ".json"}
        for n in (0, 2)
    )
    assert one == two
    assert {"a-000.idx", "a-000.packets", "manifest-000000.parquet"} <= one.keys()
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == listed
    assert verify(tmp_path / "index0").problems == []
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "raw", tmp_path / "moved/raw")
    shutil.move(tmp_path / "index0", tmp_path / "moved/index0")
    assert verify(tmp_path / "moved/index0").ok
    manifest = Manifest.load(tmp_path / "moved/index0")
    name, offset, size = manifest.member(0, "video")
    path = manifest.folder / name
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="are not those that were written"):
        manifest.store.read(name, offset, size)


def test_an_index_and_its_tars_are_read_at_a_url(tars, tmp_path):
    shutil.copytree(tars, tmp_path / "raw", ignore=shutil.ignore_patterns("*.p*", "*.json", "*.idx", "*.sums"))
    index_tars([tmp_path / "raw"], tmp_path / "index", workers=0)
    found = []
    with serving(tmp_path) as server:
        for location in (tmp_path / "index", f"{server.url}/index"):
            loader = video_loader(location, clip=VideoClip(frames=4, stride=2, size=32), batch_size=3, device="cpu")
            found.append([(batch.key, batch.video.numpy().tobytes()) for batch in loader])
            assert verify(location).problems == []
        assert "raw/a-000.tar" in {request.name for request in server.requests}
    assert found[0] == found[1]


def test_a_keyframe_that_is_none_is_no_entry(tmp_path):
    data = write_video(tmp_path / "p.mp4", "libx264", {**H264, "bf": "0"}, {})
    video = demuxed_video(data)
    keyframe = video.packets.keyframe.copy()
    keyframe[24] = True  # a P-frame
    video = replace(video, packets=replace(video.packets, keyframe=keyframe))
    assert candidates(video.packets, N_FRAMES).tolist() == [0, 16, 24, 32, 48]
    digests = decoded(data, only_first=False).digests
    assert exact_entries(data, video, digests).tolist() == [0, 16, 32, 48]


def test_rejects_name_what_is_wrong(media, tmp_path):
    good, mkv = media["faststart.mp4"], media["vp9.webm"]
    rotated = bytearray(good)
    at = good.index(b"tkhd") + 44
    rotated[at : at + 36] = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    other = write_video(tmp_path / "mpeg4.mp4", "mpeg4", {}, {})
    members = [
        ("good.mp4", good),
        ("good.cls", b"7"),
        ("cut.mp4", good[: len(good) * 2 // 3]),
        ("cutmkv.webm", mkv[: len(mkv) // 2]),
        ("text.mp4", b"no video" * 200),
        ("empty.mp4", b""),
        ("mpeg4.mp4", other),
        ("rotated.mp4", bytes(rotated)),
        ("label.mp4", good),
        ("label.json", b"{"),
        ("bool.mp4", good),
        ("bool.json", b'{"label": true}'),
        ("twice.mp4", good),
        ("twice.mp4", good),
        ("words.json", b"{}"),
        ("good.txt", b"too late"),
        ("README", b"read me"),
        ("._good.mp4", b"resource"),
    ]
    write_tar(tmp_path / "x.tar", members)
    write_tar(tmp_path / "y.tar", [("good.mp4", good), ("fine.mp4", good)])
    report = index_tars([tmp_path], as_is=True, workers=0)
    manifest = Manifest.load(tmp_path)
    assert manifest.keys(range(report.samples)) == ["good", "fine"]
    assert manifest.label.tolist() == [7, -1]
    found = rejects(tmp_path)
    expected = {
        "x.tar:cut": "",
        "x.tar:cutmkv": "truncated",
        "x.tar:text": "no mp4, mov, mkv or webm",
        "x.tar:empty": "is empty",
        "x.tar:mpeg4": "is mpeg4",
        "x.tar:rotated": "rotated",
        "x.tar:label": "json is damaged",
        "x.tar:bool": "True; legal are integers",
        "x.tar:twice": "'mp4' twice",
        "x.tar:words": "has no video",
        "x.tar:good": "its key occurs earlier",
        "x.tar:README": "no member of a sample",
        "x.tar:._good.mp4": "no member of a sample",
        "y.tar:good": "is in x.tar too",
    }
    assert found.keys() == expected.keys()
    assert all(words in found[source] for source, words in expected.items()), found
    assert sum(report.rejects.values()) == len(expected)
    assert verify(tmp_path, decode=True).problems == []


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_every_form_of_tar(media, tmp_path, form):
    name = "é" * 40 if form == tarfile.USTAR_FORMAT else "ünï/" * 60 + "clip"
    path = write_tar(tmp_path / "x.tar", [(f"{name}.mp4", media["faststart.mp4"])], form)
    index_tars([path], as_is=True, workers=0, fast=True)
    assert Manifest.load(tmp_path).key(0) == name
    assert verify(tmp_path).ok


def test_damaged_tars_end_where_the_damage_is(media, tmp_path):
    data = media["faststart.mp4"]
    path = write_tar(tmp_path / "x.tar", [("one.mp4", data), ("two.mp4", data), ("three.mp4", data)])
    whole = path.read_bytes()
    path.write_bytes(whole[: 2 * (512 + -(-len(data) // 512) * 512) + 700])
    index_tars([path], as_is=True, workers=0, fast=True)
    assert Manifest.load(tmp_path).keys([0]) == ["one"]
    assert set(rejects(tmp_path)) == {"x.tar:two", "x.tar"}
    path.write_bytes(b"\x1f\x8b" + whole[2:])
    with pytest.raises(DatasetError, match=r"1 tars hold no usable video.*gunzip"):
        index_tars([path], as_is=True, workers=0)


def test_headers_that_lie_are_bounded(media, tmp_path):
    for words in (b"27 size=999999999999999999\n", b"10 size=-5\n", b"9999999 path=x\n", b"20 GNU.sparse.map=0\n"):
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, kind, data in (("p", tarfile.XHDTYPE, words), ("a.mp4", tarfile.REGTYPE, b"x" * 600)):
                info = tarfile.TarInfo(name)
                info.type, info.size = kind, len(data)
                tar.addfile(info, io.BytesIO(data))
        with pytest.raises(DatasetError, match=r"x\.tar: the "):
            index_tars([path], as_is=True, workers=0)


def test_wrong_settings(split, tmp_path):
    with pytest.raises(ValueError, match="no file"):
        index_tars([tmp_path / "nothing.tar"])
    with pytest.raises(ValueError, match=r"no \*.tar in"):
        index_tars([tmp_path])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(split / "a-000.tar", tmp_path / name)
    shutil.move(tmp_path / "two/a-000.tar", tmp_path / "two/c.tar")
    with pytest.raises(ValueError, match="2 folders"):
        index_tars([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(RejectError, match="is empty"):
        index_video(b"")


def test_a_tar_that_others_changed_is_another_dataset(split, tmp_path):
    shutil.copytree(split, tmp_path / "copy")
    clip = VideoClip(frames=4, stride=2, size=32)
    state = video_loader(split, clip=clip, batch_size=2, device="cpu").state_dict()
    os.utime(tmp_path / "copy/a-000.tar")
    with (tmp_path / "copy/a-000.tar").open("ab") as file:
        file.write(bytes(512))
    index_tars([tmp_path / "copy"], as_is=True, workers=0, fast=True)
    with pytest.raises(ResumeError):
        video_loader(tmp_path / "copy", clip=clip, batch_size=2, device="cpu").load_state_dict(state)
