"""Data configs: they equal the loaders' settings, survive JSON, and are the identity of a loader."""

import inspect
import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from maskstream import pipelines
from maskstream.pipelines import AudioClip, VideoClip, video_loader
from maskstream.pipelines.augment import MultiScaleCrop
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.augment.sound import Mixup
from maskstream.pipelines.masks import MotionGuided, Random, Tube
from maskstream.pipelines.modalities.audio.data import AudioData, NoisyData
from maskstream.pipelines.modalities.audio.rows import MicrophoneLine
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.pipelines.modalities.mesh.data import MeshData
from maskstream.pipelines.modalities.mesh.read import MeshStatistics
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.points.data import PointsData
from maskstream.pipelines.modalities.points.tokens import GroupTokens
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.pipelines.modalities.split import Options, Split
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.mix import mix
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest

from ..every_modality import MODALITIES

LOADERS: list[tuple[Any, type[DataConfig[Any]]]] = [
    (pipelines.image_loader, ImageData),
    (pipelines.image_text_loader, ImageTextData),
    (pipelines.video_loader, VideoData),
    (pipelines.audio_loader, AudioData),
    (pipelines.noisy_loader, NoisyData),
    (pipelines.audiovisual_loader, AudioVisualData),
    (pipelines.packed_loader, PackedData),
    (pipelines.points_loader, PointsData),
    (pipelines.pose_loader, PoseData),
    (pipelines.mesh_loader, MeshData),
    (pipelines.text_loader, TextData),
    (pipelines.trajectory_loader, TrajectoryData),
]


def test_every_modality_has_a_loader() -> None:
    assert {data.modality for _, data in LOADERS} == set(MODALITIES)
    assert {loader.__name__ for loader, _ in LOADERS} == {n for n in pipelines.__all__ if n.endswith("_loader")}


@pytest.mark.parametrize(("loader", "data"), LOADERS)
def test_the_signature_of_a_loader_lists_and_explains_each_option(loader: Any, data: type[DataConfig[Any]]) -> None:
    parameters = dict(inspect.signature(loader).parameters)
    assert parameters.pop("location").kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    wanted = {f.name for f in fields(data)} | {f.name for f in fields(Options)}
    if loader is pipelines.packed_loader:
        wanted = wanted - {"batch_size", "token_budget"} | {"rows"}
    assert set(parameters) == wanted
    explained = dict(re.findall(r"^    (\w+): (.+)", inspect.getdoc(loader) or "", re.MULTILINE))
    assert [name for name in parameters if not explained.get(name, "See `").partition("See `")[0]] == []
    defaults = {f.name: f.default for f in fields(data) if f.default is not MISSING}
    assert {name: parameters[name].default for name in defaults} == defaults


def test_an_unknown_setting_is_refused_with_the_legal_ones(split: Path) -> None:
    with pytest.raises(
        TypeError,
        match=r"video_loader\(\) has no parameter 'masks', did you mean 'mask'\?; allowed: .*mask,.*batch_size",
    ):
        video_loader(split, masks=None)  # type: ignore[call-arg]


def test_none_is_refused_for_a_required_setting(split: Path) -> None:
    with pytest.raises(ValueError, match="clip must be a VideoClip, got None"):
        video_loader(split, clip=None)  # type: ignore[arg-type]
    assert video_loader(split, mask=None, augment=None, batch_size=2, clip=VideoClip(frames=2, size=32))


@pytest.mark.parametrize(
    "data",
    [
        VideoData(mask=MotionGuided(ratio=0.8), flow="dis", views=2),
        AudioData(clip=AudioClip(seconds=1.28), features=LogMel(), mixup=Mixup(), patch=(32, 16)),
        NoisyData(line=MicrophoneLine(count=2), noise="noises"),
        AudioVisualData(video_mask=Tube(), audio_mask=Random()),
        ImageData(size=64, patch=8, mask=Random(), colour=ColourJitter(hue=0.1)),
        PointsData(tokens=GroupTokens(groups=8)),
        MeshData(statistics=MeshStatistics(mean=(0.0,), deviation=(1.0,), change=(1.0,), edge_length=0.5)),
    ],
)
def test_a_data_config_survives_json(data: DataConfig[Any]) -> None:
    assert DataConfig.from_dict(json.loads(json.dumps(data.to_dict()))) == data


def test_grids_follow_from_the_fields() -> None:
    assert VideoData(tubelet=4).grids["video"].shape == (4, 14, 14)
    assert AudioData().grids["audio"].shape == (64, 8)
    assert [grid.shape for grid in AudioVisualData(audio_patch=(32, 16)).grids.values()] == [(8, 14, 14), (32, 8)]
    assert PointsData(tokens=GroupTokens(groups=8)).grids["points"].shape == (8,)


def test_sizes_must_be_multiples_of_the_patch() -> None:
    with pytest.raises(ValueError, match="cannot be divided into tokens of 48 x 16"):
        AudioData(patch=(48, 16))


MASKED = VideoData(clip=VideoClip(frames=4, size=32), mask=MotionGuided(ratio=0.75), augment=MultiScaleCrop(), patch=8)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(MASKED, mask=MotionGuided(ratio=0.5)), r"data\.mask\.ratio: saved 0\.75, here 0\.5"),
        (
            replace(MASKED, mask=Tube(ratio=0.75), flow="codec"),
            r"data\.mask: saved MotionGuided\(ratio=0\.75\), here T",
        ),
        (replace(MASKED, clip=VideoClip(frames=4, size=32, stride=8)), r"data\.clip\.stride: saved 4, here 8"),
        (replace(MASKED, augment=MultiScaleCrop(flip=0.5)), r"data\.augment\.flip: saved 0\.0, here 0\.5"),
        (replace(MASKED, views=2), r"data\.views: saved 1, here 2"),
        (replace(MASKED, flow="dis"), r"data\.flow: saved Codec\(\), here Dis\(\)"),
        (replace(MASKED, tubelet=4), r"data\.tubelet: saved 2, here 4"),
        (replace(MASKED, patch=16), r"data\.patch: saved 8, here 16"),
    ],
)
def test_a_loader_refuses_the_state_of_another_config(split: Path, other: VideoData, says: str) -> None:
    state = json.loads(json.dumps(MASKED.loader(split, batch_size=2).state_dict()))
    MASKED.loader(split, batch_size=2).load_state_dict(state)
    with pytest.raises(ResumeError, match=says):
        other.loader(split, batch_size=2).load_state_dict(state)


def test_auto_and_its_resolved_value_are_the_same_identity(split: Path) -> None:
    state = replace(MASKED, flow="codec", clip=replace(MASKED.clip, align=4)).loader(split, batch_size=2).state_dict()
    replace(MASKED, augment=None).loader(split, batch_size=2).load_state_dict(state)
    assert state["data"]["component"] == "mp4"


def test_clips_that_start_on_gops_have_the_codecs_flow_and_an_identity_of_their_own(split: Path) -> None:
    data = replace(MASKED, clip=replace(MASKED.clip, align="gop"))
    loader = data.loader(split, batch_size=2, shuffle=False)
    manifest = Manifest.load(split)
    seen = 0
    for batch in loader:
        assert batch.flow is not None
        for key, start_s in zip(batch.key, batch.pts_s[:, 0].tolist(), strict=True):
            video = manifest.video(manifest.keys(range(len(manifest))).index(key))
            assert round(start_s * video.fps) in video.first_frame.tolist()
            seen += 1
    assert seen == len(manifest)
    state = loader.state_dict()
    assert state["data"]["flow"]["kind"] == "Codec"
    with pytest.raises(ResumeError, match=r"data\.clip\.align: saved gop, here 4"):
        MASKED.loader(split, batch_size=2, shuffle=False).load_state_dict(state)


def test_a_mixture_names_the_source_that_differs(split: Path) -> None:
    def mixed(flip: float) -> Loader[Any]:
        opened, sources = Split.open(split, "video", device="cpu"), []
        for own in (0.0, flip):
            data = VideoData(clip=MASKED.clip, augment=MultiScaleCrop(flip=own))
            sources.append((data.source(opened), 1))
        return Loader(mix(sources), batch_size=2, device="cpu")

    with pytest.raises(ResumeError, match=r"sources\.1\.data\.augment\.flip: saved 0\.0, here 0\.5"):
        mixed(0.5).load_state_dict(mixed(0.0).state_dict())
