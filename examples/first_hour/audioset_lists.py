"""Sounds as AudioSet's lists name them: segments in wav files, and the three csv files of Google."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

RATE_HZ = 16_000
CLASSES = {"/m/09x0r": "Speech", "/m/05zppz": "Male speech, man speaking", "/m/04rlf": "Music", "/m/01x3z": "Clock"}
LISTS = {"train": "balanced_train_segments.csv", "val": "eval_segments.csv"}
HEAD = "# Segments csv\n# num_segs\n# YTID, start_seconds, end_seconds, positive_labels\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Seconds `start_s` to `stop_s` of a file's sound, and the ids of what can be heard in it."""

    path: Path
    start_s: int
    stop_s: int
    classes: tuple[str, ...]


def write_audioset(root: Path, splits: Mapping[str, Sequence[Segment]]) -> None:
    """Write `audio/YTID_START.wav` (16 kHz, one channel, int16), a list for each split, and the list of classes."""
    (root / "audio").mkdir(parents=True)
    rows = [f'{number},{name},"{text}"' for number, (name, text) in enumerate(CLASSES.items())]
    (root / "class_labels_indices.csv").write_text("\n".join(["index,mid,display_name", *rows]) + "\n")
    for split, segments in splits.items():
        lines = []
        for one in segments:
            name = f"{one.path.stem:_<11.11}"
            classes = ",".join(one.classes)
            lines.append(f'{name}, {one.start_s:.3f}, {one.stop_s:.3f}, "{classes}"\n')
            sound = _sound(one.path)[one.start_s * RATE_HZ : one.stop_s * RATE_HZ]
            with wave.open(str(root / "audio" / f"{name}_{one.start_s}.wav"), "wb") as file:
                file.setparams((1, 2, RATE_HZ, len(sound), "NONE", ""))
                file.writeframes(sound.tobytes())
        (root / LISTS[split]).write_text(HEAD + "".join(lines))


def _sound(path: Path) -> np.ndarray:
    """The first sound track of a file, int16 (N,) at 16 kHz."""
    to_mono = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as file:
        frames = [part for frame in file.decode(audio=0) for part in to_mono.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *to_mono.resample(None)]])
