"""LibriSpeech as OpenSLR publishes it: `train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac` and so on.

The folders are in ROOT or in ROOT/LibriSpeech. All `train-*` folders form the split train, all `dev-*` val and all
`test-*` test. The label is the speaker; `json` holds the transcript of `*.trans.txt` as `text`.

V. Panayotov et al., Librispeech, ICASSP 2015.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.raw.lists import read_lines
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, in_archives, require_folder
from .folders import distinct_folders, readable

SPLITS = {"train": "train-*", "val": "dev-*", "test": "test-*"}
OBTAIN = "Get the tar.gz files from openslr.org/12 and unpack them, so that there is ROOT/LibriSpeech/train-clean-100"


@in_archives(".txt")
def librispeech(root: Path) -> Dataset:
    """The splits of all subsets found. Raises DatasetError if there is none."""
    require_folder(root, name="librispeech", obtain=OBTAIN)
    base = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    found: dict[str, list[tuple[Path, str]]] = {}
    folders = distinct_folders(
        chapter for pattern in SPLITS.values() for subset in base.glob(pattern) for chapter in subset.glob("*/*")
    )
    for split, pattern in SPLITS.items():
        chapters = [
            transcript
            for folder in folders
            if folder.parent.parent.match(pattern)
            for transcript in sorted(folder.glob("*.trans.txt"))
        ]
        if utterances := [utterance for chapter in chapters for utterance in _utterances(chapter)]:
            found[split] = utterances
    if not found:
        raise DatasetError(f"librispeech: there is no train-*, dev-* or test-* with *.trans.txt in {base}. {OBTAIN}")
    speakers = sorted({path.parts[-3] for utterances in found.values() for path, _ in utterances}, key=_number)
    numbers = {speaker: number for number, speaker in enumerate(speakers)}
    listed = {
        split: [
            Source(id=readable(path.relative_to(base)), path=path, label=numbers[path.parts[-3]], meta={"text": text})
            for path, text in utterances
        ]
        for split, utterances in found.items()
    }
    return dataset_of("librispeech", speakers, listed, root=root, obtain=OBTAIN, encoder=AudioEncoder())


def _utterances(transcript: Path) -> list[tuple[Path, str]]:
    """The flac file and the transcript of each line."""
    lines = [line.partition(" ") for _, line in read_lines(transcript)]
    return [(transcript.parent / f"{name}.flac", words) for name, _, words in lines]


def _number(speaker: str) -> tuple[int, str]:
    return (int(speaker), speaker) if speaker.isdecimal() else (1 << 62, speaker)
