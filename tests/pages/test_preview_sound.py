"""Sound on a page: what is heard, its waveform, its spectrogram with axes and mask, and frames over the same time."""

import base64
import math
from io import BytesIO

import av
import numpy as np
import pytest

from maskstream.modalities.audio import with_usual_seconds
from maskstream.modalities.audiovisual import with_sound_of_clips
from maskstream.pages.figures.figures import MaskRow
from maskstream.pages.figures.spectrogram import (
    HEARD_SAMPLES,
    draw_spectrograms,
    draw_waveform,
    encode_flac_uri,
    format_band_ticks,
    limit_heard_samples,
    paint_loudness,
)
from maskstream.pipelines import Fbank, Librosa, LogMel, audiovisual_loader, masks
from maskstream.pipelines.masks import mask_batch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.audio.spectrogram import compute_spectrogram_grid
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.shards.format.manifest import Manifest

from ..pipelines.every_modality import write_split
from .pages import Page, decode, preview

RATE = 16000


def tone(hertz, seconds=0.5):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


# What is heard, and its waveform


def heard(uri):
    with av.open(BytesIO(base64.b64decode(uri.removeprefix("data:audio/flac;base64,")))) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1)[0], container.streams.audio[0].rate


def test_the_sound_of_a_page_is_the_sound_and_what_is_too_loud_is_cut_off():
    sound = tone(440) * 0.7
    sound[100:110] = (1.5, -1.5) * 5
    samples, rate = heard(encode_flac_uri(sound, RATE))
    assert rate == RATE
    np.testing.assert_array_equal(samples, np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16))


@pytest.mark.parametrize(("n", "sounds"), [(163_840, 1), (163_840, 8), (163_840, 64), (10, 64)])
def test_all_sounds_of_a_page_together_are_bounded(n, sounds):
    own = limit_heard_samples(n, sounds)
    assert 0 < own <= n
    assert own * sounds <= HEARD_SAMPLES
    assert own == n or (own + 1) * sounds > HEARD_SAMPLES


def test_a_page_says_when_it_holds_only_the_beginning(tmp_path, monkeypatch):
    folder = write_split("audio", tmp_path)
    monkeypatch.setattr("maskstream.pages.figures.spectrogram.HEARD_SAMPLES", 2 * 1600)
    page = Page(preview(folder, out=tmp_path / "a.html", samples=2).read_text())
    assert page.text.count("This page contains only the first 0.1 s.") == 2
    assert [len(heard(uri)[0]) for uri in page.attributes("audio", "src")] == [1600, 1600]


def test_the_waveform_is_the_extent_of_each_column():
    rng = np.random.default_rng(0)
    sound = (rng.normal(size=8000) * np.linspace(0, 0.3, 8000)).astype(np.float32)
    corners = np.array([[float(v) for v in p.split()] for p in draw_waveform(sound)[1:-1].split("L")])
    assert len(corners) == 1600
    there, back = corners[:800], corners[800:][::-1]
    columns = sound.reshape(800, 10) / np.abs(sound).max()
    np.testing.assert_allclose(1 - there[:, 1] / 500, columns.max(axis=1), atol=0.002)
    np.testing.assert_allclose(1 - back[:, 1] / 500, columns.min(axis=1), atol=0.002)
    np.testing.assert_allclose(there[:, 0], (np.arange(800) + 0.5) / 0.8, atol=0.51)


def test_silence_is_a_line_in_the_middle():
    assert {p.split()[1] for p in draw_waveform(np.zeros(100, np.float32))[1:-1].split("L")} == {"500"}


# The spectrogram


@pytest.mark.parametrize(
    "features", [Fbank(), LogMel(), Fbank(sample_rate=44100, n_bins=64), Fbank(low_hz=0, n_bins=40)]
)
def test_labels_of_frequencies_stand_at_their_bands(features):
    """Against the formulas of the scales: HTK's mel for Kaldi's filterbank, Slaney's for librosa's."""

    def htk(hertz):
        return 1127 * math.log1p(hertz / 700)

    def slaney(hertz):
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    mel = htk if isinstance(features, Fbank) else slaney
    ticks = format_band_ticks(features)
    low, high = mel(features.low_hz), mel(features.sample_rate / 2)
    assert len(ticks) >= 4
    for tick in ticks:
        number, unit = tick.label.split()
        hertz = float(number) * (1000 if unit == "kHz" else 1)
        band = (mel(hertz) - low) / (high - low) * (features.n_bins + 1) - 1
        assert 1 - tick.at == pytest.approx((band + 0.5) / features.n_bins, abs=2.5 / features.n_bins)
    assert min(np.diff([tick.at for tick in ticks])) >= 0.11


def test_labels_of_librosas_bands():
    """The octaves of a constant-Q transform are 12 bands apart, and a lag of half a second is 120 beats a minute."""
    ticks = format_band_ticks(Librosa(feature="cqt"))
    assert [tick.label for tick in ticks] == ["4 kHz", "2 kHz", "1 kHz", "500 Hz", "250 Hz", "125 Hz"]
    assert np.diff([tick.at for tick in ticks]) == pytest.approx([12 / 84] * 5)
    assert [tick.label for tick in format_band_ticks(Librosa(feature="chroma"))] == ["A#", "G#", "F#", "E", "D", "C"]
    (at,) = (tick.at for tick in format_band_ticks(Librosa(feature="tempogram")) if tick.label == "120 BPM")
    assert at == pytest.approx(1 - 50.5 / 384)
    assert len(format_band_ticks(Librosa(feature="mfcc"))) == 7


def test_low_frequencies_are_below_and_time_runs_to_the_right():
    values = np.zeros((4, 3), np.float32)
    values[3, 0] = 1.0
    picture = paint_loudness(values, 0, 1).sum(axis=2)
    assert picture.shape == (3, 4)
    assert np.unravel_index(picture.argmax(), picture.shape) == (2, 3)


def test_the_picture_is_grey_exactly_where_tokens_are_hidden():
    grid = compute_spectrogram_grid(64, 32, (16, 8))
    values = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32).clip(0.5, 1.5)
    masked = np.random.default_rng(1).random((1, 16)) < 0.5
    mask = MaskRow.of(mask_batch(masked, grid=grid), 0)
    hidden = masked.reshape(4, 4).T[::-1]
    picture = decode(draw_spectrograms(values, grid, mask, 64, "k")[1].uri).astype(float)
    height, width = picture.shape[0] // 4, picture.shape[1] // 4
    cells = picture[: 4 * height, : 4 * width].reshape(4, height, 4, width, 3).transpose(0, 2, 1, 3, 4)
    inner = cells[:, :, 4:-4, 16:-16]
    colourful = np.ptp(inner, axis=4).mean(axis=(2, 3))
    np.testing.assert_array_equal(colourful < 8, hidden)


def test_a_grid_that_does_not_cover_the_spectrogram_is_refused():
    with pytest.raises(ValueError, match="but the spectrograms are"):
        draw_spectrograms(np.zeros((64, 32), np.float32), compute_spectrogram_grid(32, 32, (16, 8)), None, 64, "k")


def test_a_page_of_sounds_shows_as_much_as_most_of_them_have(tmp_path):
    folder = write_split("audio", tmp_path)
    manifest = Manifest.load(folder)
    seconds = with_usual_seconds(manifest, AudioData()).clip.seconds
    lengths = manifest.component("flac").facts["n_samples"] / manifest.component("flac").facts["sample_rate"]
    assert (lengths <= seconds).mean() >= 0.9
    assert seconds < lengths.max() + 0.16
    assert seconds / 0.16 == pytest.approx(round(seconds / 0.16))
    assert f"clip {seconds:g} s at" in Page(preview(folder, out=tmp_path / "a.html", samples=1).read_text()).text


# Frames and sound over one axis


def style(attrs):
    """The percentages of a style, as shares."""
    parts = [part.split(":") for part in attrs["style"].split(";") if ":" in part]
    return {
        name.strip(): float(value.strip().rstrip("%")) / 100 for name, value in parts if value.strip().endswith("%")
    }


def test_frames_and_sound_stand_at_their_times(tmp_path):
    folder = write_split("audiovisual", tmp_path)
    options = {"clip": VideoClip(frames=4, stride=4, size=32), "seconds": 0.64}
    data = AudioVisualData(**options, video_mask=masks.Random(), audio_mask=masks.Random())
    page = Page(preview(folder, data, out=tmp_path / "a.html", samples=3, seed=1).read_text())
    loader = audiovisual_loader(
        folder, **options, video_mask=masks.Random(), audio_mask=masks.Random(), batch_size=3, seed=1, device="cpu"
    )
    batch = next(iter(loader))
    assert len({round(float(start), 3) for start in batch.audio_start_s}) > 1
    for i, article in enumerate(page.articles):
        own = next(attrs for tag, attrs in article.tags if tag == "article")
        begin, seconds = float(own["data-from"]), float(own["data-seconds"])
        sound_s = float(batch.audio_start_s[i])
        cells = [attrs for tag, attrs in article.tags if tag == "div" and attrs.get("class") == "cell"]
        pts = batch.pts_s[i].tolist()
        assert begin == pytest.approx(min(pts[0], sound_s))
        assert begin + seconds >= max(pts[-1], sound_s + 0.64) - 1e-6
        for at, time in zip(cells, pts * 2, strict=True):
            assert float(at["data-time"]) == pytest.approx(time, abs=1e-4)
            assert begin + style(at)["left"] * seconds == pytest.approx(time, abs=1e-3)
        blocks = [attrs for tag, attrs in article.tags if tag == "div" and attrs.get("class") == "block"]
        assert len(blocks) == 3
        for block in map(style, blocks):
            assert begin + block["left"] * seconds == pytest.approx(sound_s, abs=1e-3)
            assert block["width"] * seconds == pytest.approx(0.64, abs=1e-3)
        (start,) = article.attributes("audio", "data-start")
        assert float(start) == pytest.approx(sound_s)


def test_frames_that_only_repeat_the_last_one_are_told_not_shown(tmp_path):
    folder = write_split("audiovisual", tmp_path)
    clip = VideoClip(frames=16, stride=4, size=32)
    page = Page(
        preview(folder, out=tmp_path / "a.html", samples=1, data=AudioVisualData(clip=clip, seconds=2.56)).read_text()
    )
    assert "10 frames (the video ends: the last is repeated 6 times)" in page.text
    assert "picture 10" in page.attributes("img", "alt")
    assert "picture 11" not in page.attributes("img", "alt")


def test_sound_is_as_long_as_the_clip_or_the_video(tmp_path):
    manifest = Manifest.load(write_split("audiovisual", tmp_path))
    fps, frames = (float(np.median(manifest.component("mp4").facts[name])) for name in ("fps", "n_frames"))
    for clip in (VideoClip(frames=4, stride=2), VideoClip(frames=64, stride=4)):
        seconds = with_sound_of_clips(manifest, AudioVisualData(clip=clip)).seconds
        shown = min(clip.frames * clip.stride, frames) / fps
        assert shown <= seconds + 1e-6 < shown + 0.16 + 1e-6
