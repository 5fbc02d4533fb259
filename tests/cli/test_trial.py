"""What the commands know of modalities: names that fit are drawn by the loader, all others are refused by name."""

from dataclasses import replace

import pytest
import typer.main

from maskstream.cli import app
from maskstream.modalities import MODALITIES, modality_of
from maskstream.modalities.audio import whole_tokens
from maskstream.pipelines import AudioClip, VideoClip, masks
from maskstream.pipelines.modalities.points.tokens import VoxelTokens
from maskstream.shards.errors import ShardError
from maskstream.trial import NO_MASK, options_of, trial_of

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
    settings = modality.data()
    assert {argument: getattr(settings, argument) for argument in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", ["audio", "mesh", "points", "text"])
def test_exactly_the_names_that_are_legal_are_drawn_by_the_loader(name, tmp_path):
    folder, modality = write_split(name, tmp_path), MODALITIES[name]
    assert modality_of(folder) is modality
    (where,) = modality.trial.masks
    legal = where.legal()
    assert where.default in legal
    for mask in masks.MASKS:
        options = {"batch_size": 2, "device": "cpu", "threads": 1, "max_bad_fraction": 0}
        if mask in legal:
            loader = modality.data(mask=mask).loader(folder, steps=100, **options)
            assert next(iter(loader)).mask is not None
        else:
            with pytest.raises(ValueError, match=f"--mask '{mask}' cannot be drawn on the tokens of {name}"):
                modality.data(mask=mask)
            with pytest.raises(ValueError):  # noqa: PT011
                next(iter(replace(modality.data(), mask=masks.MASKS[mask]()).loader(folder, steps=100, **options)))


def test_a_name_that_there_is_not_lists_those_that_fit():
    with pytest.raises(
        ValueError, match="--mask 'best' is not a mask; legal are none, audio-mae, audio-mae-strips, "
    ) as e:
        MODALITIES["audio"].data(mask="best")
    assert "tube" not in str(e.value)
    with pytest.raises(ValueError, match="--audio-mask 'tube' cannot be drawn"):
        MODALITIES["audiovisual"].data(mask="tube", audio_mask="tube")


def test_a_mask_can_be_left_out():
    assert MODALITIES["mesh"].data(mask=NO_MASK).mask is None
    both = MODALITIES["audiovisual"].data(mask=NO_MASK)
    assert both.video_mask is None
    assert both.audio_mask is not None


def test_a_ratio_is_that_of_the_mask_or_of_the_one_inside_it():
    assert MODALITIES["mesh"].data(ratio=0.25).mask == masks.MeshNodes(ratio=0.25)
    made = MODALITIES["audio"].data(mask="avsiam-audio", ratio=0.5).mask
    assert made == masks.Padded(mask=masks.FilledStrips(ratio=0.5))
    both = MODALITIES["audiovisual"].data(ratio=0.5)
    assert both.video_mask == masks.Random(ratio=0.5)
    assert both.audio_mask == masks.Random(ratio=0.8)
    with pytest.raises(ValueError, match="'fastdit-3d' has no single ratio"):
        MODALITIES["points"].data(ratio=0.5)


def test_options_become_the_settings_of_the_loader():
    video = MODALITIES["video"].data(frames=8, stride=2, size=64, views=3)
    assert (video.clip, video.views) == (VideoClip(frames=8, stride=2, size=64), 3)
    assert MODALITIES["audio"].data(sound_seconds=1.28).clip == AudioClip(seconds=1.28)
    both = MODALITIES["audiovisual"].data(stride=2, sound_seconds=0.64)
    assert (both.clip, both.seconds) == (VideoClip(stride=2), 0.64)
    points = MODALITIES["points"].data(points=100, resolution=64)
    assert (points.select.points, points.tokens) == (100, VoxelTokens(resolution=64))


def test_named_features_have_tokens_that_fit():
    trial = MODALITIES["audio"].trial
    shapes = {"fbank": (64, 8), "log-mel": (64, 8), "chroma": (64, 6), "cqt": (64, 7), "mfcc": (64, 5)}
    for name, shape in shapes.items():
        assert trial_of(trial, "audio", {"features": name}).data("audio").grids["audio"].shape == shape
    with pytest.raises(
        ValueError, match=r"'mel' is not known, did you mean 'log-mel'.; legal are fbank, log-mel, chroma, cqt"
    ):
        trial_of(trial, "audio", {"features": "mel"}).data("audio")


@pytest.mark.parametrize(
    ("name", "option", "takes"),
    [
        ("audio", {"frames": 4}, "--mask, --ratio, --views, --sound-seconds, --features"),
        ("mesh", {"points": 4}, "--mask, --ratio, --views"),
        ("video", {"audio_mask": "mae"}, "--mask, --ratio, --views, --frames, --stride, --size"),
    ],
)
def test_an_option_of_another_modality_is_refused(name, option, takes):
    (flag,) = option
    words = f"--{flag.replace('_', '-')} does not fit: the shards hold {name}, which takes {takes}"
    with pytest.raises(ValueError, match=words):
        MODALITIES[name].data(**option)


@pytest.mark.parametrize(
    ("name", "option", "says"),
    [
        ("video", {"size": 100}, "--size 100 is not a multiple of 16; the nearest are 96 and 112"),
        ("audiovisual", {"frames": 5}, "--frames 5 is not a multiple of 2; the nearest are 4 and 6"),
        ("points", {"resolution": 3}, "--resolution 3 is not a multiple of 4; the nearest are 4"),
    ],
)
def test_pictures_frames_and_voxels_are_whole_tokens(name, option, says):
    with pytest.raises(ValueError, match=says):
        MODALITIES[name].data(**option)


@pytest.mark.parametrize(("seconds", "near"), [(0.5, "0.48, 0.64"), (0.1, "0.16"), (10.0, "9.92, 10.08")])
def test_sound_is_whole_tokens(seconds, near):
    with pytest.raises(
        ValueError, match=f"{seconds:g} is not a multiple of 0.16 s, the duration of a token; try {near}$"
    ):
        MODALITIES["audio"].data(sound_seconds=seconds)
    above = whole_tokens(seconds)
    assert above >= seconds
    assert MODALITIES["audio"].data(sound_seconds=above).clip.seconds == above


@pytest.mark.parametrize("command", ["preview", "bench"])
def test_every_field_of_a_trial_is_an_option_of_both_commands(command):
    params = {param.name: param for param in typer.main.get_command(app).commands[command].params}
    for modality in MODALITIES.values():
        for name, option in options_of(modality.trial).items():
            param = params[name]
            assert param.opts == [f"--{name.replace('_', '-')}"]
            assert param.default is None
            assert param.help.startswith(option.help)
            assert (option.default or "") in param.help
            assert param.min == option.least
            assert param.rich_help_panel == option.panel
    assert "motion-guided for video, audio-mae for audio, random for audiovisual" in params["mask"].help


def test_a_folder_without_a_split_and_a_modality_without_a_loader_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ShardError, match="it is no finished split"):
        modality_of(tmp_path)
    monkeypatch.setattr("maskstream.modalities.read_dataset_json", lambda folder: {"modality": "smells"})
    with pytest.raises(
        ShardError, match="holds smells shards, which have no loader; legal are video, audio, audiovisual"
    ):
        modality_of(tmp_path)
