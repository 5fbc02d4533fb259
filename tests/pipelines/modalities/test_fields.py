"""Fields of samples: the collation rule of each kind of value."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import Field, VideoClip, image_loader, noisy_loader, video_loader
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards import (
    Member,
    Sample,
    SampleError,
    ShardError,
    array_member,
    json_member,
    video_member,
)

from ... import flash_and_beep
from ...conftest import write_moving_texture
from ...splits import write_samples
from ..every_modality import MODALITIES, write_split
from ..recording import check_what_is_read, recorded
from ..small_media import image_samples

CLASSES = ("dog", "horn", "rain")
FRAMES = 40
DESCRIBED = [
    {
        "labels": ["dog", "rain"],
        "caption": "a dog in the rain",
        "loud": 2,
        "gain": 0.5,
        "box": [1, 2, 3],
        "ids": [2, 0],
    },
    {"labels": [1], "caption": "a horn", "loud": 7, "gain": 1, "box": [4, 5], "ids": [1]},
    {"labels": [], "loud": 0, "gain": 2.5, "box": [], "ids": []},
]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The folder of a split of three clips: each has a json, 7 action values per frame, and a track."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("described") / "train"
    video = encode_video(write_moving_texture(raw / "0.mp4", seed=0, frames=FRAMES), PROFILES["train"])
    folder.mkdir()
    samples = []
    for n, said in enumerate(DESCRIBED):
        members = {
            "mp4": video_member(video.data, video.index),
            "action.npy": array_member(np.arange(FRAMES * 7, dtype=np.float32).reshape(FRAMES, 7) + 1000 * n),
            "speed.npy": array_member(np.arange(FRAMES, dtype=np.float64) + 100 * n),
            "track.npy": array_member(np.full((n + 1, 2), n, dtype=np.int16)),
            "json": json_member(said),
        }
        samples.append(Sample(key=f"s{n}", members=members, source=str(n), label=n))
    return write_samples(folder, samples, "video", dataset="set", label_names=CLASSES)


def loader(folder, fields, **options):
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "batch_size": 3, "seed": 3, "shuffle": False}
    return video_loader(folder, fields=fields, device="cpu", **settings | options)


def batch(folder, *fields, **options):
    (one,) = loader(folder, fields, **options)
    assert one.key[:: options.get("views", 1)] == ["s0", "s1", "s2"]
    return one


def test_class_names_and_class_numbers_become_multi_hot(described):
    assert batch(described, "labels").fields["labels"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_numbers_are_stacked_and_a_fraction_makes_them_float64(described):
    fields = batch(described, "loud", "gain").fields
    assert fields["loud"].dtype == torch.int64
    assert fields["loud"].tolist() == [2, 7, 0]
    assert fields["gain"].dtype == torch.float64
    assert fields["gain"].tolist() == [0.5, 1.0, 2.5]


def test_arrays_with_a_row_per_frame_give_the_rows_of_the_clip(described):
    (one,) = loader(described, ("action", Field(name="speed", per_frame=True)), shuffle=True)
    frames = (one.pts_s * 30).round().long()
    assert one.fields["action"].shape == (3, 4, 7)
    numbers = [int(key[1]) for key in one.key]
    for row, n in enumerate(numbers):
        assert one.fields["action"][row, :, 0].tolist() == (frames[row] * 7 + 1000 * n).tolist()
        assert one.fields["speed"][row].tolist() == (frames[row] + 100 * n).tolist()


def test_other_arrays_are_padded_and_have_lengths(described):
    fields = batch(described, "track", "box", "speed").fields
    assert fields["track"].dtype == torch.int16
    assert fields["track"].shape == (3, 3, 2)
    assert fields["track.length"].tolist() == [1, 2, 3]
    assert fields["track"][1].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert fields["box.length"].tolist() == [3, 2, 0]
    assert fields["speed"].shape == (3, FRAMES)


def test_a_missing_field_is_an_error_or_gets_its_default(described):
    with pytest.raises(ShardError, match=r"'s2'.*no field 'caption'.*loud.*Field\(name='caption', default=...\)"):
        batch(described, "caption")
    assert batch(described, Field(name="caption", default="")).fields["caption"] == ["a dog in the rain", "a horn", ""]


def test_a_list_of_texts_needs_a_split_without_class_names(tmp_path, caplog):
    texts = [["a cat", "a grey cat"], ["a dog"], "a horn"]
    samples = [
        replace(sample, members={**sample.members, "json": json_member({"said": said})}, label=-1)
        for sample, said in zip(image_samples(tmp_path), texts, strict=False)
    ]
    for names in ((), ("cat", "dog")):
        folder = tmp_path / f"names{len(names)}"
        write_samples(folder, samples, "image", dataset="set", label_names=names)
        given = {"fields": ("said",), "size": 16, "patch": 8, "batch_size": 3, "shuffle": False}
        if names:
            with pytest.raises(SampleError, match="3 of 3 samples"):
                next(iter(image_loader(folder, **given)))
            assert "'a cat', which is not one of the 2 classes" in caplog.text
        else:
            assert next(iter(image_loader(folder, **given))).fields["said"] == ["a cat", "a dog", "a horn"]
            shuffled = image_loader(folder, **given | {"shuffle": True})
            drawn = {text for _ in range(20) for batch in shuffled for text in batch.fields["said"]}
            assert drawn == {"a cat", "a grey cat", "a dog", "a horn"}


def test_views_repeat_the_fields_of_their_sample(described):
    one = batch(described, "loud", Field(name="caption", default="-"), views=2)
    assert one.fields["loud"].tolist() == [2, 2, 7, 7, 0, 0]
    assert one.fields["caption"][2:] == ["a horn", "a horn", "-", "-"]


@pytest.mark.slow
def test_worker_processes_and_other_topologies_give_the_same_fields(described):
    names = ("labels", "action", "box", "loud")
    here = batch(described, *names).fields
    elsewhere = loader(described, names, workers=1)
    (there,) = elsewhere
    elsewhere.close()
    assert here.keys() == there.fields.keys()
    assert all(torch.equal(here[name], there.fields[name]) for name in here)


def test_a_request_names_the_fields_that_are_read(described):
    opened, store = recorded(described, "video")
    data = VideoData(clip=VideoClip(frames=4, stride=4, size=32), fields=("labels", "action", "track"))
    check_what_is_read(data.source(opened).sampler, store, len(DESCRIBED))


def test_illegal_fields_are_refused(described, tmp_path):
    with pytest.raises(ValueError, match="loud is listed more than once"):
        loader(described, ("loud", "loud"))
    with pytest.raises(ShardError, match="'s0': there is no field 'lound'; it has labels, "):
        loader(described, ("lound",))  # before the first batch


def test_an_unknown_class_and_a_pickle_are_bad_samples(described, tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    raw = encode_video(write_moving_texture(tmp_path / "0.mp4", seed=0, frames=FRAMES), PROFILES["train"])
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117)
    pickled = b"\x93NUMPY\x01\x00" + b"v\x00" + head + b"\n"
    samples = [
        Sample(
            key=f"s{n}",
            members={
                "mp4": video_member(raw.data, raw.index),
                "thing.npy": Member(kind="bytes", data=pickled if n == 0 else array_member(np.ones(2)).data),
                "json": json_member({"labels": ["cat" if n == 1 else "dog"]}),
            },
            source=str(n),
            label=0,
        )
        for n in range(3)
    ]
    write_samples(folder, samples, "video", dataset="set", label_names=CLASSES)
    for field, bad in (("thing", "s0"), ("labels", "s1")):
        one = loader(folder, (field,), max_bad_fraction=0.5)
        (made,) = one
        assert bad not in made.key
        assert one.stats()["bad"]


NOISY = replace(MODALITIES["audio"], loader=noisy_loader)
KINDS = {**MODALITIES, "noisy": NOISY}


@pytest.fixture(scope="module", params=list(KINDS))
def told(request, tmp_path_factory):
    """A modality and its split; each sample's json has a caption and a number."""
    kind = KINDS[request.param]

    def samples(raw):
        made = kind.samples(raw)
        said = [json_member({"caption": f"this is {one.key}", "loud": int(one.key[1:])}) for one in made]
        return [replace(one, members={**one.members, "json": new}) for one, new in zip(made, said, strict=True)]

    modality = "audio" if request.param == "noisy" else request.param
    return kind, write_split(modality, tmp_path_factory.mktemp(request.param), samples)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="threads"),
        pytest.param({"views": 2}, id="views"),
        pytest.param({"workers": 2}, id="workers", marks=pytest.mark.slow),
    ],
)
def test_every_modality_has_fields(told, options):
    kind, folder = told
    if kind is NOISY and "views" in options:
        pytest.skip("noisy sounds have no views")
    loader = kind.loader(folder, fields=("caption", "loud"), batch_size=5, seed=2, threads=1, device="cpu", **options)
    batches = list(loader)
    loader.close()
    assert len(batches) == 3
    for one in batches:
        assert len(one) == 5 * options.get("views", 1)
        assert one.fields["caption"] == [f"this is {key}" for key in one.key]
        assert one.fields["loud"].dtype == torch.int64
        assert one.fields["loud"].tolist() == [int(key[1:]) for key in one.key]


def test_clips_with_sound_get_the_rows_of_their_frames(tmp_path):
    numbers = np.arange(200, dtype=np.int64)

    def samples(raw):
        made = MODALITIES["audiovisual"].samples(raw)
        frames = [int(one.members["mp4"].facts["n_frames"]) for one in made]
        return [
            replace(
                one, members={**one.members, "frame.npy": array_member(numbers[:n]), "long.npy": array_member(numbers)}
            )
            for one, n in zip(made, frames, strict=True)
        ]

    folder = write_split("audiovisual", tmp_path, samples)
    settings = {"batch_size": 5, "seed": 2, "threads": 1, "device": "cpu"}
    named = Field(name="frame", per_frame=True)
    for one in MODALITIES["audiovisual"].loader(folder, fields=(named, "long"), **settings):
        assert one.fields["frame"].tolist() == (one.pts_s * flash_and_beep.FPS).round().long().tolist()
        assert one.fields["long"].shape == (5, 200)
    with pytest.raises(SampleError, match=r"long has the shape \(200,\), but the video has 40 frames"):
        next(iter(MODALITIES["audiovisual"].loader(folder, fields=(Field(name="long", per_frame=True),), **settings)))


HORIZON = (-4 / 30, -1 / 30, 0.0, 1 / 30, 20 / 30)


def around(frames, offsets):
    """What LeRobot documents: the rows at these frames and offsets, clamped to the episode, and which are padding."""
    wanted = [[frame + offset for offset in offsets] for frame in frames]
    inside = [[max(0, min(FRAMES - 1, row)) for row in rows] for rows in wanted]
    return inside, [[row < 0 or row >= FRAMES for row in rows] for rows in wanted]


@pytest.mark.parametrize("anchor", ["frames", "first", "last"])
def test_rows_around_frames_are_clamped_to_the_episode_and_marked(described, anchor):
    field = Field(name="action", delta_timestamps=HORIZON, anchor=anchor)
    (one,) = loader(described, (field, "loud"), shuffle=True)
    chosen = {"frames": slice(None), "first": slice(0, 1), "last": slice(3, 4)}[anchor]
    padded = 0
    for row, key in enumerate(one.key):
        frames = (one.pts_s[row, chosen] * 30).round().long().tolist()
        rows, is_pad = around(frames, (-4, -1, 0, 1, 20))
        action = 7 * np.array(rows, np.float32)[..., None] + np.arange(7, dtype=np.float32) + 1000 * int(key[1])
        single = anchor != "frames"
        np.testing.assert_array_equal(one.fields["action"][row], action[0] if single else action)
        np.testing.assert_array_equal(one.fields["action_is_pad"][row], is_pad[0] if single else is_pad)
        padded += int(np.sum(is_pad))
    assert padded, "a row beyond an end was asked for"
    assert one.fields["action_is_pad"].dtype == torch.bool
    assert set(one.fields) == {"action", "action_is_pad", "loud"}


def test_times_that_no_frame_has_are_refused_before_training(described, tmp_path):
    with pytest.raises(ValueError, match=r"'action'\): 0\.05 in .* is not a multiple of 1/30 s.* are 1/30 and 2/30"):
        loader(described, (Field(name="action", delta_timestamps=(0, 0.05)),))
    with pytest.raises(ValueError, match="action_is_pad is listed more than once"):
        loader(described, (Field(name="action", delta_timestamps=(0,)), "action_is_pad"))
    for wrong, message in (
        ({"delta_timestamps": ()}, "pass offsets from a frame in seconds"),
        ({"delta_timestamps": (float("nan"),)}, "pass offsets from a frame in seconds"),
        ({"anchor": "last"}, "anchor needs delta_timestamps"),
        ({"delta_timestamps": (0,), "anchor": "middle"}, "anchor must be"),
        ({"delta_timestamps": (0,), "per_frame": False}, "delta_timestamps needs per_frame=True"),
    ):
        with pytest.raises(ValueError, match=message):
            Field(name="action", **wrong)
    Field(name="action", delta_timestamps=[0.0333, 0.0667]).steps(30)  # as far off as LeRobot allows
    with pytest.raises(SampleError, match=r"track has the shape \(\d, 2\), but the video has 40 frames"):
        batch(described, Field(name="track", delta_timestamps=(0,)), max_bad_fraction=0.0)
    folder = write_split("image", tmp_path, MODALITIES["image"].samples)
    with pytest.raises(ValueError, match="has delta_timestamps, but these samples have no frames"):
        MODALITIES["image"].loader(folder, fields=(Field(name="json", delta_timestamps=(0,)),), device="cpu")
