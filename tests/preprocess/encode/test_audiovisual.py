"""Videos with sound to members on one clock: a flash and a beep that begin together stay together."""

import io
import json

import av
import numpy as np
import pytest
import soundfile as sf

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.source import RejectError, Source
from maskstream.samples.audiovisual.sample_audiovisual import CLIPS, windows
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.verify import verify

from ...flash_and_beep import FPS, flashes, onsets, write

HALF_A_FRAME = 0.5 / FPS
PRIMING = 1024 / 48000 + 0.002
"""What an AAC encoder puts before the first sample; of a track that begins late it may stay in, at its time."""


def encoded(path, window=None):
    return AudioVisualEncoder().encode(Source(id=path.name, path=path, window=window))


def times_of(made):
    """When flashes and beeps begin, on the sample's clock, in both members decoded by other libraries."""
    with av.open(io.BytesIO(made.members["mp4"].data)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    sound, rate = sf.read(io.BytesIO(made.members["flac"].data))
    assert len(frames) == made.meta["n_frames"]
    return flashes(frames, np.arange(len(frames)) / made.meta["fps"]), made.meta["audio_start_s"] + onsets(sound, rate)


def assert_together(made, expected):
    shown, heard = times_of(made)
    np.testing.assert_allclose(shown, np.array(expected) / FPS, atol=1e-6)
    assert len(heard) == len(shown)
    assert np.abs(heard - shown).max() < HALF_A_FRAME / 2
    end_s = made.meta["audio_start_s"] + made.meta["audio"]["duration_s"]
    assert made.meta["audio_start_s"] >= -1e-9
    assert end_s <= made.meta["duration_s"] + 1e-9


CONTAINERS = [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.mov", "aac"), ("a.mkv", "libopus"), ("a.ts", "aac")]


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
@pytest.mark.parametrize("late", [0, 13])
def test_a_flash_and_a_beep_begin_together_after_any_cut(tmp_path, name, codec, late):
    """Also where the sound track begins half a second late."""
    path = write(tmp_path / name, (30, 60, 77), codec=codec, late=late)
    whole = encoded(path)
    assert_together(whole, (30, 60, 77))
    assert late / FPS - PRIMING < whole.meta["audio_start_s"] < late / FPS + 0.002
    assert whole.meta["audio_share"] == pytest.approx(1 - late / 100, abs=0.02)
    again = encoded(path)
    assert again.meta == whole.meta
    for name, member in whole.members.items():
        assert (again.members[name].data, again.members[name].facts) == (member.data, member.facts)
    cut = encoded(path, (21, 70))
    assert_together(cut, (9, 39))
    assert 0 <= cut.meta["audio_start_s"] < 1 / 48000
    assert cut.members["flac"].facts["start_s"] == cut.meta["audio_start_s"]


def test_a_video_that_begins_late_and_sound_that_ends_early(tmp_path):
    made = encoded(write(tmp_path / "late.mkv", (20, 50), video_late=40))
    assert_together(made, (20, 50))
    assert made.meta["audio_start_s"] < 0.001
    short = encoded(write(tmp_path / "short.mp4", (20, 50), ends=58))
    assert_together(short, (20, 50))
    assert short.meta["audio_share"] == pytest.approx(0.58, abs=0.03)
    longer = write(tmp_path / "longer.mp4", (20, 50))
    assert_together(encoded(longer, (0, 40)), (20,))


def test_a_gap_in_the_sound_is_filled_so_that_what_follows_keeps_its_time(tmp_path):
    made = encoded(write(tmp_path / "gap.mkv", (20, 70), codec="pcm_s16le", skip=(48000, 96000)))
    assert_together(made, (20, 70))
    assert made.meta["audio_filled_s"] == pytest.approx(1, abs=0.05)


def test_avi_has_a_clock_only_without_b_frames(tmp_path):
    assert_together(encoded(write(tmp_path / "a.avi", (30, 60), codec="pcm_s16le", video="mpeg4")), (30, 60))
    with pytest.raises(RejectError, match="no ordered time stamps"):
        encoded(write(tmp_path / "b.avi", (30, 60), codec="pcm_s16le"))


def test_what_has_no_sound_to_learn_from_is_a_reject_with_its_reason(tmp_path, make_video):
    with pytest.raises(RejectError, match="no audio track"):
        encoded(make_video("mute.mp4", 5))
    with pytest.raises(RejectError, match="silent"):
        encoded(make_video("zeros.mp4", 30, audio=True))
    with pytest.raises(RejectError, match=r"silent: -6\d dB, at least -60 dB"):
        encoded(write(tmp_path / "quiet.mkv", (30,), codec="pcm_s16le", level=0.005))
    assert encoded(write(tmp_path / "soft.mkv", (30,), codec="pcm_s16le", level=0.05)).meta["audio_level_db"] > -50
    with pytest.raises(RejectError, match=r"in only 3[0-9]% of its duration"):
        encoded(write(tmp_path / "short.mp4", (5,), ends=35))
    with pytest.raises(RejectError, match="no audio from 2"):
        encoded(write(tmp_path / "cut.mp4", (5,), ends=35), (50, 90))
    sf.write(tmp_path / "only.wav", np.zeros(8000), 16000)
    with pytest.raises(RejectError, match="no video stream"):
        encoded(tmp_path / "only.wav")
    with pytest.raises(ValueError, match="profile 'copy' does not keep the time"):
        AudioVisualEncoder(PROFILES["copy"])


def test_a_damaged_sound_track_is_a_reject(tmp_path):
    path = write(tmp_path / "a.mp4", (30,))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.size]
        positions = [(p.pos, p.size) for p in packets[len(packets) // 2 :]]
    for position, size in positions:
        data[position : position + size] = b"\x55" * size
    path.write_bytes(data)
    with pytest.raises(RejectError, match="audio"):
        encoded(path)


def test_a_folder_to_a_verified_split(tmp_path):
    for i in range(3):
        write_to = tmp_path / "raw/train" / "ab"[i % 2] / f"{i}.mp4"
        write_to.parent.mkdir(parents=True, exist_ok=True)
        write(write_to, (10 + 5 * i,), frames=40, late=i)
    write(tmp_path / "raw/train/a/silent.mp4", (), frames=40)
    report = make_shards("audiovisual-folder", tmp_path / "raw", tmp_path / "out", workers=0, max_rejects=1)
    split = report.splits["train"]
    assert (split.counts["samples"], split.counts["rejected"], split.counts["frames"]) == (3, {"check": 1}, 120)
    assert verify(split.folder, decode=True).ok
    manifest = Manifest.load(split.folder)
    assert manifest.info["modality"] == "audiovisual"
    assert sorted(manifest.component("flac").facts["start_s"]) == pytest.approx([0, 0.018, 0.058], abs=0.002)
    assert list(manifest.components) == ["flac", "json", "mp4"]
    assert manifest.info["sums"]["fbank"][0] > 1000
    name, offset, size = manifest.member(0, "json")
    path = manifest.folder / name
    assert json.loads(path.read_bytes()[offset : offset + size])["audio"]["sample_rate"] == 48000


def test_vggsound(tmp_path):
    names = ["video/-a_B_000030.mp4", "video/cc_7.mp4", "video/dd_000100.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = '-a_B,30,"playing harp, badly",train\ncc,7,dog barking,test\nzz,1,dog barking,train\ndd,100,owl,train\n'
    (tmp_path / "vggsound.csv").write_text(rows)
    data = DATASETS["vggsound"](tmp_path)
    assert data.modality == "audiovisual"
    assert data.label_names == ("dog barking", "owl", "playing harp, badly")
    assert [(s.id, s.label, s.path.name) for s in data.splits["train"]] == [
        ("-a_B_000030", 2, "-a_B_000030.mp4"),
        ("dd_000100", 1, "dd_000100.mp4"),
    ]
    assert [s.path.name for s in data.splits["val"]] == ["cc_7.mp4"]
    assert [r.source for r in data.missing["train"]] == ["zz_000001"]
    (tmp_path / "vggsound.csv").write_text("-a_B,30,harp\n")
    with pytest.raises(DatasetError, match="-a_B,30,harp"):
        DATASETS["vggsound"](tmp_path)
    (tmp_path / "vggsound.csv").unlink()
    with pytest.raises(DatasetError, match=r"there is no vggsound\.csv"):
        DATASETS["vggsound"](tmp_path)


def test_audioset_as_videos(tmp_path):
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/1,Speech\n")
    (tmp_path / "balanced_train_segments.csv").write_text('# YTID, ...\n-a_B, 0.000, 10.000, "/m/1"\n')
    for name in ("-a_B.wav", "-a_B.mp4"):
        (tmp_path / name).touch()
    data = DATASETS["audioset-video"](tmp_path)
    assert (data.name, data.modality, data.splits["train"][0].path.name) == (
        "audioset-video",
        "audiovisual",
        "-a_B.mp4",
    )


def test_windows_of_the_sample_set_share_no_frame_between_splits():
    for clip in CLIPS:
        cut = windows(clip)
        assert cut["train"]
        assert cut["val"]
        assert max(stop for _, stop in cut["train"]) <= min(first for first, _ in cut["val"])
        assert max(stop for _, stop in cut["val"]) <= clip.n_frames
