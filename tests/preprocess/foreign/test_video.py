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
from maskstream.pipelines.modalities.video.clip_plan import clip_ranges, read_clip
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.preprocess import index_tars
from maskstream.preprocess.foreign.video import decoded, demuxed_video, find_exact_entries, index_video
from maskstream.preprocess.source import RejectError
from maskstream.shards.errors import ResumeError, StoreError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify
from maskstream.shards.media.gops import candidates

from ...damaged_files import flip
from ...pipelines.recording import check_what_is_read, recorded
from ...web_server import serving
from .foreign_tars import write_tar
from .foreign_videos import H264, N_FRAMES, VIDEOS, trimmed, write_video


def plain_frames(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def member(manifest, i):
    return manifest.store.read(*manifest.member(i, "video"))


def read(manifest, i, numbers):
    """The bytes of a clip."""
    video = manifest.video(i)
    ranges = clip_ranges(video, numbers, manifest.member(i, "video"))
    return read_clip(manifest.store, video, numbers, ranges)


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
                got = read(manifest, i, numbers)
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
    flip(path)
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
    flip(path, offset + size // 2)
    with pytest.raises(StoreError, match="differ from what was written"):
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
    assert find_exact_entries(data, video, digests).tolist() == [0, 16, 32, 48]


def test_wrong_settings(split, tmp_path):
    with pytest.raises(ValueError, match="no file"):
        index_tars([tmp_path / "nothing.tar"])
    with pytest.raises(ValueError, match=r"no \*.tar found in"):
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
