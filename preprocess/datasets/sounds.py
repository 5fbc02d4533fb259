"""Audio datasets, in the layouts of their publishers."""

import re
from pathlib import Path
from typing import Any

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.raw.lists import TableRow, read_json, read_lines, read_table
from maskstream.preprocess.source import Source, Span
from maskstream.shards.errors import DatasetError

from .dataset import (
    EVAL,
    Dataset,
    dataset_of,
    describe_one_down,
    find_first_existing,
    in_archives,
    require_folder,
    split_lists,
)
from .folder import AUDIO_SUFFIXES, SOUND_SUFFIXES
from .folders import SPLIT_FOLDERS, VIDEO_SUFFIXES, list_distinct_folders, list_media, readable

ESC50_OBTAIN = "Get github.com/karolpiczak/ESC-50 and arrange it as ROOT/meta/esc50.csv and ROOT/audio/*.wav"
ESC50_COLUMNS = ("filename", "fold", "target", "category")


@in_archives(".csv")
def esc50(root: Path, *, fold: int = 1) -> Dataset:
    """Read ESC-50 as its author publishes it: `meta/esc50.csv` and `audio/*.wav` below ROOT, or one folder down.

    The five folds are for cross-validation: the chosen fold is the split val, the others are train.

    K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015.

    Args:
        root: Folder of the raw data.
        fold: Fold for validation, 1 to 5.

    Raises:
        DatasetError: The folder has another layout.
        ValueError: There is no such fold.
    """
    if not 1 <= fold <= 5:
        raise ValueError(f"ESC-50 has folds 1 to 5, got {fold=}")
    name = "esc50" if fold == 1 else f"esc50-{fold}"
    require_folder(root, name=name, obtain=ESC50_OBTAIN)
    table = find_first_existing(root, "meta/esc50.csv", "*/meta/esc50.csv")
    if table is None:
        raise DatasetError(f"{name}: there is no meta/esc50.csv in {root} or a folder in it. {ESC50_OBTAIN}")
    rows = list(read_table(table, ESC50_COLUMNS, obtain=ESC50_OBTAIN))
    names = {row.number("target"): row["category"] for row in rows}
    listed: dict[str, list[Source]] = {"train": [], "val": []}
    for row in rows:
        path = table.parent.parent / "audio" / row["filename"]
        source = Source(id=row["filename"], path=path, label=row.number("target"))
        listed["val" if row.number("fold") == fold else "train"].append(source)
    label_names = [names.get(number, str(number)) for number in range(max(names, default=-1) + 1)]
    return dataset_of(name, label_names, listed, root=root, obtain=ESC50_OBTAIN, encoder=AudioEncoder())


SUBSETS = {"train": "train-*", "val": "dev-*", "test": "test-*"}
LIBRISPEECH_OBTAIN = (
    "Get the tar.gz files from openslr.org/12 and unpack them, so that there is ROOT/LibriSpeech/train-clean-100"
)


@in_archives(".txt")
def librispeech(root: Path) -> Dataset:
    """Read LibriSpeech as OpenSLR publishes it: `train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac` and so
    on.

    The folders are in ROOT or in ROOT/LibriSpeech. All `train-*` folders form the split train, all `dev-*` val and all
    `test-*` test. The label is the speaker; `json` contains the transcript from `*.trans.txt` as `text`.

    V. Panayotov et al., Librispeech, ICASSP 2015.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: There is no such folder.
    """
    require_folder(root, name="librispeech", obtain=LIBRISPEECH_OBTAIN)
    base = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    found: dict[str, list[tuple[Path, str]]] = {}
    folders = list_distinct_folders(
        chapter for pattern in SUBSETS.values() for subset in base.glob(pattern) for chapter in subset.glob("*/*")
    )
    for split, pattern in SUBSETS.items():
        chapters = [
            transcript
            for folder in folders
            if folder.parent.parent.match(pattern)
            for transcript in sorted(folder.glob("*.trans.txt"))
        ]
        if utterances := [utterance for chapter in chapters for utterance in _read_utterances(chapter)]:
            found[split] = utterances
    if not found:
        raise DatasetError(
            f"librispeech: there is no train-*, dev-* or test-* with *.trans.txt in {base}. {LIBRISPEECH_OBTAIN}"
        )
    speakers = sorted({path.parts[-3] for utterances in found.values() for path, _ in utterances}, key=_number)
    numbers = {speaker: number for number, speaker in enumerate(speakers)}
    listed = {
        split: [
            Source(id=readable(path.relative_to(base)), path=path, label=numbers[path.parts[-3]], meta={"text": text})
            for path, text in utterances
        ]
        for split, utterances in found.items()
    }
    return dataset_of("librispeech", speakers, listed, root=root, obtain=LIBRISPEECH_OBTAIN, encoder=AudioEncoder())


def _read_utterances(transcript: Path) -> list[tuple[Path, str]]:
    """Return the flac file and the transcript of each line."""
    lines = [line.partition(" ") for _, line in read_lines(transcript)]
    return [(transcript.parent / f"{name}.flac", words) for name, _, words in lines]


def _number(speaker: str) -> tuple[int, str]:
    return (int(speaker), speaker) if speaker.isdecimal() else (1 << 62, speaker)


AUDIOSET_LISTS = {
    "train": ("balanced_train_segments.csv", "unbalanced_train_segments.csv"),
    "val": ("eval_segments.csv",),
}
CLASSES = "class_labels_indices.csv"
SEGMENTS = ("YTID", "start", "end", "labels")
"""Columns of the lists, which have no header."""
AUDIOSET_OBTAIN = (
    "Get the csv files from research.google.com/audioset/download.html, put them into ROOT, and the segments' audio "
    "below it, such as ROOT/audio/YTID.wav"
)


@in_archives(".csv")
def audioset(root: Path, *, balanced: bool = False, whole: bool = False, videos: bool = False) -> Dataset:
    """Read AudioSet as Google publishes it: lists of segments, with the audio that you have downloaded for them.

    Files below ROOT: `balanced_train_segments.csv` and/or `unbalanced_train_segments.csv` (together the split train),
    `eval_segments.csv` (val) and `class_labels_indices.csv`, in ROOT or in `metadata/`; and in any folder the segments,
    cut to their 10 seconds, as audio or video files named YTID, YYTID, YTID_START or YTID_START_END with times in
    seconds or milliseconds. A segment's label is its first class; `json` contains all classes as `labels`.

    J. F. Gemmeke et al., Audio Set, ICASSP 2017.

    Args:
        root: Folder of the raw data.
        balanced: Use only the balanced list for train.
        whole: Files named YTID or YYTID are whole videos, from which the segments are cut.
        videos: Use only video files with audio, and keep their video.

    Returns:
        The published splits.

    Raises:
        DatasetError: The folder has another layout.
    """
    name = f"audioset{'-video' if videos else ''}{'-balanced' if balanced else ''}"
    require_folder(root, name=name, obtain=AUDIOSET_OBTAIN)
    numbers, label_names = read_audioset_classes(root, name, AUDIOSET_OBTAIN)
    files: dict[str, Path] = {}
    for path in list_media(root, VIDEO_SUFFIXES if videos else SOUND_SUFFIXES):
        files.setdefault(path.stem, path)
    listed: dict[str, list[Source]] = {}
    for split, lists in AUDIOSET_LISTS.items():
        found = (find_first_existing(root, file, f"metadata/{file}") for file in lists[: 1 if balanced else None])
        wanted = [path for path in found if path is not None]
        if split == "train" and not wanted:
            raise DatasetError(f"{name}: there is no {lists[0]} in {root} or in metadata/. {AUDIOSET_OBTAIN}")
        for path in wanted:
            rows = read_table(path, SEGMENTS, names=SEGMENTS, comment="#", obtain=AUDIOSET_OBTAIN)
            listed.setdefault(split, []).extend(_make_segment(row, files, numbers, root, whole) for row in rows)
    encoder = AudioVisualEncoder() if videos else AudioEncoder()
    return dataset_of(name, label_names, listed, root=root, obtain=AUDIOSET_OBTAIN, encoder=encoder)


def read_audioset_classes(root: Path, name: str, obtain: str) -> tuple[dict[str, int], list[str]]:
    """Return the number of each class by its id, and the class names in the order of the numbers.

    Args:
        root: Folder that has class_labels_indices.csv, directly or in metadata/.
        name: Name of the dataset, for messages.
        obtain: Sentence that explains how to arrange the data.

    Raises:
        DatasetError: The file is missing or malformed.
    """
    path = find_first_existing(root, CLASSES, f"metadata/{CLASSES}")
    if path is None:
        near = describe_one_down(root, CLASSES, f"metadata/{CLASSES}")
        raise DatasetError(f"{name}: there is no {CLASSES} in {root} or in metadata/.{near} {obtain}")
    rows = sorted(
        read_table(path, ("index", "mid", "display_name"), obtain=obtain), key=lambda row: row.number("index")
    )
    return {row["mid"]: number for number, row in enumerate(rows)}, [row["display_name"] for row in rows]


def _make_segment(row: TableRow, files: dict[str, Path], numbers: dict[str, int], root: Path, whole: bool) -> Source:
    video, start, end = row["YTID"], row.seconds("start"), row.seconds("end")
    labels = [numbers[mid] for mid in row["labels"].split(",") if mid in numbers]
    if not labels:
        raise row.error(f"the classes {row['labels']!r}, which are not in {CLASSES}", AUDIOSET_OBTAIN)
    times = [f"{start:g}_{end:g}", f"{start:.3f}_{end:.3f}", f"{start * 1000:.0f}_{end * 1000:.0f}"]
    times += [f"{start:g}", f"{start:.3f}", f"{start * 1000:.0f}", f"{start:06.0f}"]
    cut = next((files[name] for time in times if (name := f"{video}_{time}") in files), None)
    found = cut or files.get(video) or files.get(f"Y{video}") or root / f"{video}.wav"
    span = Span(start_s=start, stop_s=end, listed=f"{row.path.name}, line {row.line}") if whole and not cut else None
    return Source(id=f"{video}_{start:g}_{end:g}", path=found, label=labels[0], span=span, meta={"labels": labels})


AUDIO_JSON = "audio-json"
AUDIO_JSON_OBTAIN = (
    f"Put {CLASSES} and the lists into ROOT, such as ROOT/train.json and ROOT/eval.json: "
    '{"data": [{"wav": PATH, "labels": "/m/ID,/m/ID"}, ...]}'
)


@in_archives(".csv", ".json")
def audio_json(root: Path) -> Dataset:
    """Read lists of audio files in the format of AST and Audio-MAE: JSON files of paths and class ids.

    Files in ROOT: `class_labels_indices.csv` (index, mid, display_name), and JSON files whose names contain the word
    `train`, and `eval`, `val` or `test`, such as `audioset_train.json`: {"data": [{"wav": PATH, "labels":
    "/m/04rlf,/m/02mscn"}, ...]}. PATH is relative to ROOT, or absolute and below it. The label is the first class;
    `json` contains all classes as `labels`.

    Y. Gong, Y.-A. Chung, J. Glass, AST, Interspeech 2021.

    Args:
        root: Folder of the raw data.

    Returns:
        The splits that have a list.

    Raises:
        DatasetError: The folder has another layout.
    """
    require_folder(root, name=AUDIO_JSON, obtain=AUDIO_JSON_OBTAIN)
    words = {**SPLIT_FOLDERS, "val": (*SPLIT_FOLDERS["val"], *EVAL)}
    lists = split_lists(AUDIO_JSON, (root,), words, (".json",), AUDIO_JSON_OBTAIN)
    numbers, label_names = read_audioset_classes(root, AUDIO_JSON, AUDIO_JSON_OBTAIN)
    listed = {
        split: [
            _make_listed_sound(entry, f"{path}: entry {i}", numbers, root)
            for i, entry in enumerate(_list_entries(path))
        ]
        for split, path in lists.items()
    }
    return dataset_of(AUDIO_JSON, label_names, listed, root=root, obtain=AUDIO_JSON_OBTAIN, encoder=AudioEncoder())


def _list_entries(path: Path) -> list[Any]:
    found = read_json(path, AUDIO_JSON_OBTAIN)
    entries = found.get("data") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise DatasetError(f"{path} has no list `data`. {AUDIO_JSON_OBTAIN}")
    return entries


def _make_listed_sound(entry: object, where: str, numbers: dict[str, int], root: Path) -> Source:
    wav = entry.get("wav") if isinstance(entry, dict) else None
    ids = entry.get("labels") if isinstance(entry, dict) else None
    if not isinstance(wav, str) or not wav or not isinstance(ids, str):
        raise DatasetError(f"{where} needs the texts `wav` and `labels`. {AUDIO_JSON_OBTAIN}")
    known = [mid.strip() for mid in ids.split(",")]
    if unknown := [mid for mid in known if mid not in numbers]:
        raise DatasetError(f"{where} has the class {unknown[0][:40]!r}, which is not in {CLASSES}. {AUDIO_JSON_OBTAIN}")
    labels = [numbers[mid] for mid in known]
    return Source(id=wav, path=root / wav, label=labels[0], meta={"labels": labels})


_CHANNEL = re.compile(r"(.+)\.CH(\d+)", re.IGNORECASE)
_CHIME_SPLITS = {"tr": "train", "dt": "val", "et": "test", "train": "train", "val": "val", "test": "test"}
MICROPHONES_OBTAIN = "Arrange the files as ROOT/tr05_bus_simu/NAME.CH1.wav, NAME.CH2.wav, ... and ROOT/dt05_.../"


@in_archives()
def microphones(root: Path) -> Dataset:
    """Read recordings with one file per microphone, in the layout of CHiME-3: `NAME.CH1.wav`, `NAME.CH2.wav`, ...

    Files of the same name and folder become the channels of one sample, in the order of their numbers. CH0, the
    speaker's close-talking microphone in CHiME-3, is skipped. Folders such as `tr05_bus_simu` belong to the split train
    (tr), val (dt) or test (et), as do folders named train, val and test; all others belong to train. The label is the
    folder.

    J. Barker et al., The third CHiME speech separation and recognition challenge, ASRU 2015.

    Args:
        root: Folder of the raw data.

    Raises:
        DatasetError: No file is named like NAME.CH1.wav.
    """
    require_folder(root, name="microphones", obtain=MICROPHONES_OBTAIN)
    groups: dict[tuple[Path, str], dict[int, Path]] = {}
    for path in list_media(root, AUDIO_SUFFIXES):
        if (found := _CHANNEL.fullmatch(path.stem)) and int(found[2]) > 0:
            groups.setdefault((path.parent, found[1]), {})[int(found[2])] = path
    if not groups:
        raise DatasetError(f"microphones: no file in {root} is named like NAME.CH1.wav. {MICROPHONES_OBTAIN}")
    folders = sorted({folder for folder, _ in groups})
    names = [readable(folder.relative_to(root)) for folder in folders]
    listed: dict[str, list[Source]] = {}
    for (folder, name), channels in sorted(groups.items()):
        first, *others = [channels[number] for number in sorted(channels)]
        where = folder.relative_to(root)
        source = Source(
            id=readable(where / name),
            path=first,
            label=folders.index(folder),
            meta={"microphones": sorted(channels)},
            parts=tuple(others),
        )
        listed.setdefault(_find_chime_split(where), []).append(source)
    return dataset_of("microphones", names, listed, root=root, obtain=MICROPHONES_OBTAIN, encoder=AudioEncoder())


def _find_chime_split(folder: Path) -> str:
    for part in folder.parts:
        for word in (part.lower(), part[:2].lower() if part[2:4].isdecimal() else ""):
            if word in _CHIME_SPLITS:
                return _CHIME_SPLITS[word]
    return "train"
