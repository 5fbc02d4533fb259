"""Raw samples outside of shards, files and texts of any size and length, and their conversion to batches.

Exports are tested on them: a model card must compute the same result from a raw sample as this package.
"""

import json
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.video.stream import VideoStream
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.decode.sound import MARGIN_S, finished, keep_channels
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData, list_image_components
from maskstream.pipelines.modalities.image.decode import REDUCIBLE, decode_image, extend_to_grid, reduction, show
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.text.batch import build_text_batch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.clip_decoder import ClipDecoder
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TOKENIZER_JSON, TokenizerFacts, read_tokenizer, read_tokenizer_facts
from maskstream.shards.media.fbank import Fbank

Bytes = npt.NDArray[np.uint8]
SOUNDS = ("flac", "mp3", "ogg", "wav")
"""File extensions of audio that libsndfile reads."""
LETTERS = "abcdefghij KLMNO pqrstu.,-'\u00e9\u00df\u65e5\U0001f600 0123456789\n"
"""Letters of random texts."""


class RawKind(Protocol):
    """The conversion of raw samples of a data config to batches.

    Attributes:
        card: Name of the code for model cards (cards/), "" if the card needs none.
        plural: Name of the samples.
        settings: Values of settings in this code.
        given: Name of the batch's tensor that the model takes.
    """

    card: str
    plural: str
    given: str

    @property
    def settings(self) -> Mapping[str, object]: ...

    @property
    def components(self) -> Sequence[str]:
        """Members that may contain the raw sample; each sample has one of them."""

    def draw(self, path: Path, draws: np.random.Generator) -> str:
        """Draw a random sample and return its file, `path` with a suffix, or its text.

        Args:
            path: Path without the suffix.
            draws: Random generator.
        """

    def batch(self, samples: Sequence[str]) -> Batch:
        """Return the batch of files or texts, whole and not augmented."""


def choose_raw_kind(config: DataConfig[Any], split: Manifest) -> RawKind | None:
    """Return the kind of raw samples of a config without augmentation; None if only samples of a split can be read.

    Args:
        config: Settings of the data.
        split: The split.
    """
    if getattr(config, "transform", None) is not None:
        return None
    opened = Split.open(split, config.modality, device="cpu")
    if type(config) is ImageData:
        return RawPictures(config.size, list_image_components(split, config.component))
    if type(config) is VideoData and not isinstance(config.component, tuple):
        video = config.resolved(opened)
        plain = video.clip.align != "gop" and not isinstance(video.clip.seconds, tuple)
        return RawClips(video, split.info["profile"]) if plain else None
    if type(config) is AudioData and isinstance(config.features, Fbank) and config.clip.channels in ("mono", 1):
        return RawSounds(config.resolved(opened), opened)
    if type(config) is TextData:
        return RawTexts(
            config.length, read_tokenizer_facts(split.location, split.info), read_tokenizer(split.store, split.info)
        )
    return None


def store_raw(kind: RawKind, split: Manifest, index: int, folder: Path) -> str | None:
    """Write a sample of a split to its original file, or return its text.

    Args:
        kind: Kind of raw samples.
        split: The split.
        index: Index of the sample.
        folder: Folder to write to.

    Returns:
        The file or the text; None for audio that is not raw, because its gain is only in the manifest or because
            libsndfile does not read it.

    Raises:
        ValueError: The sample has none or several of the members.
    """
    held = [name for name in kind.components if split.components[name].offset[index]]
    if len(held) != 1:
        raise ValueError(f"sample {split.key(index)!r} of {split} has {len(held)} of {', '.join(kind.components)}")
    (data,) = split.store.read_many([split.member(index, held[0])])
    if isinstance(kind, RawTexts):
        return data.decode()
    gain = split.components[held[0]].facts.get("gain")
    if isinstance(kind, RawSounds) and (
        held[0].rpartition(".")[2] not in SOUNDS or (gain is not None and gain[index] != 1)
    ):
        return None
    path = folder / f"{index}.{held[0].rpartition('.')[2]}"
    path.write_bytes(data)
    return str(path)


def _draw_levels(width: int, height: int, draws: np.random.Generator) -> Bytes:
    """Draw an image of soft coloured spots, uint8 (height, width, 3)."""
    small = draws.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@dataclass(frozen=True)
class RawPictures:
    """Images whose centre is `size` pixels wide and high; `components` are their members in a split."""

    size: int
    components: Sequence[str]
    card = "picture"
    plural = "images"
    given = "image"

    @property
    def settings(self) -> Mapping[str, object]:
        return {"SIZE": self.size}

    def draw(self, path: Path, draws: np.random.Generator) -> str:
        short, aspect = self.size * draws.uniform(0.3, 4), draws.uniform(1, 3)
        sides = [max(round(short), 2), max(round(short * aspect), 2)]
        width, height = draws.permutation(sides).tolist()
        form, quality = str(draws.choice(["png", "jpg"])), int(draws.integers(50, 99))
        to = path.with_suffix(f".{form}")
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpg" else []
        cv2.imwrite(str(to), _draw_levels(width, height, draws), options)
        return str(to)

    def batch(self, samples: Sequence[str]) -> Batch:
        images = np.empty((len(samples), self.size, self.size, 3), np.uint8)
        for path, out in zip(samples, images, strict=True):
            data = Path(path).read_bytes()
            whole: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            height, width = whole.shape[:2]
            crop = CenterCrop().draw(width, height, self.size, np.random.default_rng(0))
            n = reduction([crop], self.size, self.size) if path.endswith(REDUCIBLE) else 1
            show(decode_image(data, width, height, n), extend_to_grid(crop, n, width, height), n, out)
        return ImageBatch(image=torch.from_numpy(images), mask=None, **_names(samples))


@dataclass(frozen=True)
class RawClips:
    """Clips of a resolved config, from shards of a profile."""

    config: VideoData
    profile: str
    card = "clip"
    plural = "videos"
    given = "video"

    @property
    def settings(self) -> Mapping[str, object]:
        clip = self.config.clip
        plain = {"FRAMES": clip.frames, "STRIDE": clip.stride, "SIZE": clip.size, "ALIGN": clip.align}
        return {**plain, "FPS": clip.fps, "SECONDS": clip.seconds, "SHORT": clip.short}

    @property
    def components(self) -> Sequence[str]:
        return (str(self.config.component),)

    def draw(self, path: Path, draws: np.random.Generator) -> str:
        clip = self.config.clip
        most, rate = 2 * clip.span(25), 25
        count = int(draws.integers(1 if clip.short in ("repeat", "loop") else clip.span(rate), most + 1))
        width, height = (2 * max(round(side / 2), 8) for side in clip.size * draws.uniform(0.4, 2.5, 2))
        levels, to = _draw_levels(width + count, height, draws), path.with_suffix(".mp4")
        with av.open(str(to), "w") as file:
            stream: VideoStream = file.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for n in range(count):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels[:, n : n + width]), format="rgb24")
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        return str(to)

    def batch(self, samples: Sequence[str]) -> Batch:
        config = self.config
        decoder = ClipDecoder(
            config.clip, profile=self.profile, augment=CenterCrop(), tubelet=config.tubelet, patch=config.patch
        )
        return VideoBatch.concatenated([decoder(path, key=path) for path in samples])


@dataclass(frozen=True)
class RawSounds:
    """Audio settings of a resolved config, with the statistics of the split."""

    config: AudioData
    split: Split
    card = "sound"
    plural = "sounds"
    given = "spectrogram"

    @property
    def settings(self) -> Mapping[str, object]:
        clip, bank, made = self.config.clip, self.config.features, self.config.spectrogram(self.split)
        assert isinstance(bank, Fbank)
        return {
            "RATE": clip.sample_rate,
            "SAMPLES": clip.n_samples,
            "FRAMES": made.frames,
            "CHANNELS": None if clip.channels == "mono" else 1,
            "START": clip.start,
            "SHORT": clip.short,
            "BINS": bank.n_bins,
            "WINDOW": bank.window,
            "SHIFT": bank.shift,
            "LOW_HZ": bank.low_hz,
            "MEAN": made.mean,
            "DEVIATION": made.deviation,
            "SCALE": made.scale,
        }

    @property
    def components(self) -> Sequence[str]:
        return (str(self.config.component),)

    def draw(self, path: Path, draws: np.random.Generator) -> str:
        rate, channels = int(draws.choice([8000, 16000, 22050, 44100])), int(draws.integers(1, 3))
        n = max(int(self.config.clip.seconds * rate * draws.uniform(0.05, 2)), rate // 20)
        time = np.arange(n)[:, None] / rate
        tones = sum(np.sin(2 * np.pi * hertz * time + np.arange(channels)) for hertz in draws.uniform(50, 3500, 5))
        levels = np.int16(3000 * tones + draws.normal(0, 300, (n, channels)))
        to = path.with_suffix(".wav")
        with wave.open(str(to), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(levels.tobytes())
        return str(to)

    def batch(self, samples: Sequence[str]) -> Batch:
        clip = self.config.clip
        waveforms, lengths = torch.zeros(len(samples), clip.n_channels, clip.n_samples), []
        for path, row in zip(samples, waveforms, strict=True):
            with wave.open(path) as file:
                rate, channels = file.getframerate(), file.getnchannels()
                levels = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, channels)
            first, stop = clip.segment(len(levels), rate, np.random.default_rng(0))
            margin = 0 if rate == clip.sample_rate else int(MARGIN_S * rate)
            low, high = max(first - margin, 0), min(stop + margin, len(levels))
            part = keep_channels(levels[low:high], clip.channels).astype(np.float32) * np.float32(2**-15)
            mono = clip.channels == "mono"
            sound = finished(part, rate, clip.sample_rate, first - low, stop - first, mono=mono)[: clip.n_samples]
            if clip.short == "repeat":
                sound = np.resize(sound, (clip.n_samples, sound.shape[1]))
            row[:, : len(sound)] = torch.from_numpy(sound.T.copy())
            lengths.append(len(sound))
        length = torch.tensor(lengths)
        return AudioBatch(
            waveform=waveforms,
            length=length,
            spectrogram=self.config.spectrogram(self.split)(waveforms[:, 0], length),
            mask=None,
            start_s=torch.zeros(len(samples), dtype=torch.float64),
            strips=None,
            mixed_label=None,
            share=None,
            **_names(samples),
        )


@dataclass(frozen=True)
class RawTexts:
    """Texts in rows of `length` tokens, with the tokenizer of a split and its definition."""

    length: int
    facts: TokenizerFacts
    definition: bytes
    card = ""
    plural = "texts"
    given = "input_ids"
    components = ("txt",)

    @property
    def settings(self) -> Mapping[str, object]:
        return {}

    def draw(self, path: Path, draws: np.random.Generator) -> str:
        """Draw a text of one to about a thousand letters that has at least one token.

        Args:
            path: Unused.
            draws: Random generator.
        """
        text = "".join(draws.choice(list(LETTERS), int(4 ** draws.uniform(0.5, 5))))
        return text if self.tokenizer().encode(text, add_special_tokens=False).ids else f"a{text}"

    def batch(self, samples: Sequence[str]) -> Batch:
        tokenizer, ends = (
            self.tokenizer(),
            [[] if one is None else [one] for one in (self.facts.begin, self.facts.end)],
        )
        tokens = np.full((len(samples), self.length), self.facts.pad or 0, np.int32)
        documents, words = np.full_like(tokens, -1), np.full_like(tokens, -1)
        most = self.length - sum(map(len, ends))
        for row, text in enumerate(samples):
            ids = [*ends[0], *tokenizer.encode(text, add_special_tokens=False).ids[:most], *ends[1]]
            tokens[row, : len(ids)], documents[row, : len(ids)] = ids, 0
        return build_text_batch(tokens=tokens, documents=documents, words=words, key=[*map(str, range(len(samples)))])

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, without truncation and padding."""
        tokenizer = Tokenizer.from_str(self.definition.decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def write_tokenizer(self, folder: Path) -> dict[str, int]:
        """Write the split's tokenizer in the format of transformers, with the names of its special tokens and those
        that surround a text in training; return their ids, for the model's config.
        """
        facts = self.facts
        tokenizer = self.tokenizer()
        begin, end = ([] if one is None else [one] for one in (facts.begin, facts.end))
        alone = tokenizer.encode("a b", add_special_tokens=False).ids
        if tokenizer.encode("a b").ids != [*begin, *alone, *end]:
            names = {one: tokenizer.id_to_token(one) for one in (*begin, *end)}
            template = [*(names[one] for one in begin), "$A", *(names[one] for one in end)]
            pair = [*template, "$B:1", *(f"{names[one]}:1" for one in end)]
            special = [(name, one) for one, name in names.items()]
            tokenizer.post_processor = TemplateProcessing(single=template, pair=pair, special_tokens=special)
        (folder / TOKENIZER_JSON).write_text(tokenizer.to_str())
        ids = {"pad": facts.pad, "cls": facts.begin, "sep": facts.end}
        named = {f"{role}_token": one for role, one in {**ids, "unk": facts.unknown, "mask": facts.mask}.items()}
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.length}
        about |= {name: tokenizer.id_to_token(one) for name, one in named.items() if one is not None}
        (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n")
        ids |= {"bos": facts.begin, "eos": facts.end}
        return {f"{role}_token_id": one for role, one in ids.items() if one is not None}


def _names(samples: Sequence[str]) -> dict[str, Any]:
    """Return the keys and labels of a batch of raw samples."""
    return {"key": [Path(path).name for path in samples], "label": torch.full((len(samples),), -1)}
