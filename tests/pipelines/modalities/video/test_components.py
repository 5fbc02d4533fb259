"""Samples with two cameras and a depth video: they are written and verified, and each video is loaded by name."""

import json

import numpy as np
import pytest

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards import (
    Manifest,
    Member,
    Sample,
    StoreError,
    array_member,
    component_of,
    inspect,
    json_member,
    verify,
    video_member,
)

from ....conftest import write_moving_texture
from ....splits import write_samples

VIDEOS = ("cam0.mp4", "cam1.mp4", "depth.mp4")
FRAMES = {"cam0.mp4": 40, "cam1.mp4": 34, "depth.mp4": 47}


def split_of(folder, samples):
    return write_samples(folder, samples, "video", dataset="rig")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """The three videos of each of four samples, all different."""
    folder = tmp_path_factory.mktemp("raw")
    made = []
    for n in range(4):
        paths = {
            name: write_moving_texture(folder / f"{n}{name}", seed=10 * n + i, frames=FRAMES[name] + n)
            for i, name in enumerate(VIDEOS)
        }
        made.append({name: encode_video(path, PROFILES["train"]) for name, path in paths.items()})
    return made


@pytest.fixture(scope="module")
def rig(videos, tmp_path_factory):
    """The folder of the split; its last sample has no depth."""
    samples = []
    for n, made in enumerate(videos):
        members = {name: video_member(video.data, video.index) for name, video in made.items()}
        if n == 3:
            del members["depth.mp4"]
        members["action.npy"] = array_member(np.full((20, 7), n, np.float32))
        members["txt"] = Member(kind="text", data=b"a caption")
        members["json"] = json_member({"n": n})
        samples.append(Sample(key=f"s{n}", members=members, source=f"{n}", label=n))
    return split_of(tmp_path_factory.mktemp("split") / "train", samples)


def opened(folder, **options):
    return video_loader(
        folder,
        clip=VideoClip(frames=4, stride=2, size=32),
        mask=masks.Tube(ratio=0.5),
        patch=8,
        batch_size=2,
        seed=5,
        device="cpu",
        **options,
    )


def test_all_components_are_written_and_verified(rig, videos):
    assert verify(rig, decode=True).problems == []
    manifest = Manifest.load(rig)
    assert {name: c.kind for name, c in manifest.components.items()} == {
        "action.npy": "array",
        "cam0.mp4": "video",
        "cam1.mp4": "video",
        "depth.mp4": "video",
        "json": "json",
        "txt": "text",
    }
    for name in VIDEOS:
        lengths = [made[name].index.n_frames for made in videos]
        lengths[3] = 0 if name == "depth.mp4" else lengths[3]
        assert manifest.component(name).facts["n_frames"].tolist() == lengths
        np.testing.assert_array_equal(manifest.video(1, name).offset, videos[1][name].index.offset)
    assert manifest.component("action.npy").lists["shape"][2].tolist() == [20, 7]
    assert manifest.store.read(*manifest.member(2, "txt")) == b"a caption"
    frames = sum(int(manifest.component(name).facts["n_frames"].sum()) for name in VIDEOS)
    assert manifest.info["counts"]["frames"] == frames
    found = inspect(rig)
    assert list(found["video"]) == list(VIDEOS)
    assert found["facts"]["depth.mp4.n_frames"] == {"mean": 48, "min": 47, "max": 49}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["cam0.mp4", "cam1.mp4"])
def test_each_camera_is_loaded_as_if_it_were_alone(rig, videos, tmp_path, name, workers):
    alone = [
        Sample(key=f"s{n}", members={"mp4": video_member(made[name].data, made[name].index)}, source="", label=n)
        for n, made in enumerate(videos)
    ]
    expected = list(opened(split_of(tmp_path / "alone", alone)))
    got = list(opened(rig, component=name, workers=workers, threads=1))
    assert [batch.key for batch in got] == [batch.key for batch in expected]
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours.video.numpy(), theirs.video.numpy())
        np.testing.assert_array_equal(ours.pts_s.numpy(), theirs.pts_s.numpy())


def test_a_sample_without_the_component_is_a_bad_sample(rig):
    loader = opened(rig, component="depth.mp4", max_bad_fraction=1.0)
    keys = [key for _ in range(4) for batch in loader for key in batch.key]
    assert loader.stats()["bad"] > 0
    assert set(keys) == {"s0", "s1", "s2"}


def test_the_component_must_be_named_if_several_fit(rig):
    with pytest.raises(ValueError, match=r"3 components are video: cam0\.mp4, cam1\.mp4, depth\.mp4; choose one with"):
        opened(rig)
    with pytest.raises(ValueError, match=r"'cam2\.mp4' does not exist; components that are video: cam0\.mp4, cam1"):
        opened(rig, component="cam2.mp4")
    with pytest.raises(ValueError, match=r"component='action\.npy' is array, not video"):
        opened(rig, component="action.npy")
    components = Manifest.load(rig).components
    assert component_of(components, ("array",)).name == "action.npy"
    with pytest.raises(
        ValueError, match=r"no component is sound or points; the split contains action\.npy \(array\), cam0"
    ):
        component_of(components, ("sound", "points"))


def test_a_flipped_bit_names_its_component(rig, tmp_path):
    import shutil

    shutil.copytree(rig, tmp_path / "copy")
    manifest = Manifest.load(tmp_path / "copy")
    name, offset, size = manifest.member(2, "depth.mp4")
    data = bytearray((tmp_path / "copy" / name).read_bytes())
    data[offset + size // 2] ^= 1
    (tmp_path / "copy" / name).write_bytes(data)
    problems = verify(tmp_path / "copy").problems
    assert any("sample 's2', component 'depth.mp4': its bytes differ from those" in problem for problem in problems)
    with pytest.raises(StoreError):
        manifest.store.read(name, offset, size)


def test_illegal_component_names_and_facts_are_refused(videos):
    video = videos[0]["cam0.mp4"]
    for name in ("a" * 20, "cam0..mp4", ".mp4", "_mp4", "Cam0.mp4", "mp4."):
        with pytest.raises(ValueError, match="at most 19 characters"):
            Sample(key="s", members={name: video_member(video.data, video.index)}, source="")
    for member, reason in [
        (Member(kind="video", data=b"", facts={"n_frames": 1.0}), "its type must be int"),
        (Member(kind="video", data=b"", facts={"colour": 1}), "the kind 'video' has fps"),
        (Member(kind="own", data=b"", facts={"size": 1}), "offset, size, xxh3_128 are reserved"),
        (Member(kind="own", data=b"", facts={"a.b": 1}), "names may contain only a-z"),
        (Member(kind="own", data=b"", lists={"a": np.zeros(3)}), "must be a one-dimensional int64 array"),
    ]:
        with pytest.raises(ValueError, match=reason):
            Sample(key="s", members={"mp4": member}, source="")
