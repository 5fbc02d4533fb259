"""What commands load: names and settings that fit are the loader's, all others are refused by name."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.cli.options import leaves
from maskstream.modalities import MODALITIES, modality_of
from maskstream.modality import NO_MASK
from maskstream.pipelines import AudioClip, VideoClip, masks
from maskstream.shards.config import with_set
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest

from ..pipelines.every_modality import write_split

DEFAULTS = {
    "audio": {"mask": masks.Random(ratio=0.8)},
    "audiovisual": {"video_mask": masks.Random(ratio=0.9), "audio_mask": masks.Random(ratio=0.8)},
    "image": {"mask": masks.Random(ratio=0.75)},
    "image-text": {
        "image_mask": masks.Random(ratio=0.75),
        "text_mask": masks.Padded(mask=masks.WholeWords(ratio=0.15)),
    },
    "mesh": {"mask": masks.MeshNodes(ratio=0.4)},
    "points": {"mask": masks.Padded(mask=masks.VoxelAware(foreground=0.95, background=0.99))},
    "pose": {"mask": masks.Joints()},
    "text": {"mask": masks.Padded(mask=masks.WholeWords(ratio=0.15))},
    "trajectory": {"mask": masks.Tube(ratio=0.9)},
    "video": {"mask": masks.MotionGuided(ratio=0.9)},
}


@pytest.mark.parametrize("name", list(MODALITIES))
def test_masks_by_default(name):
    modality = MODALITIES[name]
    settings = modality.chosen()
    assert {argument: getattr(settings, argument) for argument in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", ["audio", "mesh", "points", "text"])
def test_exactly_the_names_that_are_legal_are_drawn_by_the_loader(name, tmp_path):
    folder, modality = write_split(name, tmp_path), MODALITIES[name]
    assert modality_of(Manifest.load(folder)) is modality
    (where,) = modality.masks
    legal = where.legal()
    for mask in masks.MASKS:
        options = {"batch_size": 2, "device": "cpu", "threads": 1, "max_bad_fraction": 0}
        if mask in legal:
            loader = modality.chosen(masks=[mask]).loader(folder, steps=100, **options)
            assert next(iter(loader)).mask is not None
        else:
            with pytest.raises(ValueError, match=f"--mask '{mask}' cannot be drawn on the tokens of {name}"):
                modality.chosen(masks=[mask])
            with pytest.raises(ValueError):  # noqa: PT011
                next(iter(replace(modality.data, mask=masks.MASKS[mask]()).loader(folder, steps=100, **options)))


def test_a_name_that_there_is_not_lists_those_that_fit():
    with pytest.raises(ValueError, match="--mask 'best' is not a mask; choose from none, a-jepa, audio-mae, ") as e:
        MODALITIES["audio"].chosen(masks=["best"])
    assert "tube" not in str(e.value)
    with pytest.raises(ValueError, match="--mask 'tube' cannot be drawn on the tokens of audiovisual"):
        MODALITIES["audiovisual"].chosen(masks=["tube", "audio_mask=tube"])
    with pytest.raises(ValueError, match="video has the mask fields mask, got 'masks'"):
        MODALITIES["video"].chosen(masks=["masks=tube"])


def test_a_mask_can_be_left_out():
    assert MODALITIES["mesh"].chosen(masks=[NO_MASK]).mask is None
    both = MODALITIES["audiovisual"].chosen(masks=[NO_MASK])
    assert both.video_mask is None
    assert both.audio_mask is not None


def test_settings_are_those_of_the_data_config():
    video = MODALITIES["video"].chosen(["frames=8", "stride=2", "size=64", "views=3"], ["tube"])
    assert (video.clip, video.views, video.mask) == (VideoClip(frames=8, stride=2, size=64), 3, masks.Tube(ratio=0.9))
    made = MODALITIES["audio"].chosen(["ratio=0.5", "clip.seconds=1.28"], ["avsiam-audio"])
    assert (made.mask, made.clip) == (masks.Padded(mask=masks.FilledStrips(ratio=0.5)), AudioClip(seconds=1.28))
    both = MODALITIES["audiovisual"].chosen(["video_mask.ratio=0.5", "seconds=0.64"])
    assert (both.video_mask, both.audio_mask) == (masks.Random(ratio=0.5), masks.Random(ratio=0.8))
    with pytest.raises(ValueError, match=r"'ratio' is ambiguous: video_mask.ratio, audio_mask.ratio; pass the full"):
        MODALITIES["audiovisual"].chosen(["ratio=0.5"])
    with pytest.raises(ValueError, match=r"no field 'frames' to set; these shards hold mesh, and the command's --help"):
        MODALITIES["mesh"].chosen(["frames=4"])


def test_what_a_page_changes_is_not_what_was_set(tmp_path):
    folder, video = write_split("video", tmp_path / "video"), MODALITIES["video"]
    assert video.shown(Manifest.load(folder), masks=["tube"]).flow == "dis"
    assert video.shown(Manifest.load(folder), ["flow=none"], ["tube"]).flow == "none"
    folder, audio = write_split("audio", tmp_path / "audio"), MODALITIES["audio"]
    assert audio.shown(Manifest.load(folder)).clip.seconds < AudioClip().seconds
    assert audio.shown(Manifest.load(folder), ["patch=[8, 16]"]).grids["audio"].patch == (8, 16)
    assert (
        audio.shown(Manifest.load(folder), [f"clip.seconds={AudioClip().seconds}"]).clip.seconds == AudioClip().seconds
    )


@pytest.mark.parametrize(
    ("name", "setting", "says"),
    [
        ("video", "size=100", "100"),
        ("audiovisual", "frames=5", "5"),
        ("points", "resolution=3", "3"),
        ("audio", "clip.seconds=0.5", "50 frames and 128 bins cannot be divided into tokens of 16 x 16"),
    ],
)
def test_pictures_frames_voxels_and_sounds_are_whole_tokens(name, setting, says):
    with pytest.raises(ValueError, match=says):
        MODALITIES[name].chosen([setting])


@pytest.mark.parametrize("command", ["preview", "bench", "flow", "mask-score"])
def test_the_help_lists_what_can_be_set(command):
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=1000)
    words = " ".join(shown.output.split())
    expected = {"preview": MODALITIES, "bench": MODALITIES, "flow": ["video"], "mask-score": ["video"]}[command]
    for name in expected:
        assert f"{name}: " in words
    assert ("clip.size=16," if command == "mask-score" else "clip.size=224,") in words
    assert ("tokens.resolution=32" in words) == (command in ("preview", "bench"))


def test_every_field_of_the_help_can_be_set():
    for modality in MODALITIES.values():
        for path, value in leaves(modality.data.to_dict(defaults=True)):
            assert with_set(modality.data, [f"{path}={value}"]) == modality.data


def test_a_folder_without_a_split_and_a_modality_without_a_loader_are_refused(tmp_path):
    with pytest.raises(ShardError, match="it is not a finished split"):
        Manifest.load(tmp_path)
    pictures = Manifest.load(write_split("image", tmp_path))
    smells = replace(pictures, info=pictures.info | {"modality": "smells"})
    with pytest.raises(
        ShardError, match="contains smells shards, which have no loader; choose from video, audio, audiovisual"
    ):
        modality_of(smells)
