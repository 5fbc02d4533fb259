"""Something-Something V2 as Qualcomm publishes it.

Files in ROOT or one folder down: `labels.json` (template to number), `train.json` and `validation.json` (id and
template of each video), or the same with the long names `something-something-v2-*.json`. The videos are in any folder
below ROOT as `{id}.webm`. A video's label is its template without the brackets.

R. Goyal et al., The "Something Something" Video Database, arXiv 1706.04261.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskstream.preprocess.raw.lists import read_json, whole_number
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import (
    Dataset,
    MediaFiles,
    dataset_of,
    first_existing,
    in_archives,
    require_folder,
)

OBTAIN = (
    "Get it from qualcomm.com/developer/software/something-something-v-2-dataset (a login is needed), join and unpack "
    "the parts of the archive, and lay it out as ROOT/20bn-something-something-v2/*.webm and ROOT/labels.json, "
    "train.json, validation.json"
)


@in_archives(".json")
def ssv2(root: Path) -> Dataset:
    """The splits train and val. Raises DatasetError for another layout."""
    require_folder(root, name="ssv2", obtain=OBTAIN)
    found = {template: whole_number(str(number)) for template, number in _read(root, "labels", dict).items()}
    numbers = {template: number for template, number in found.items() if number is not None}
    label_names = sorted(numbers, key=numbers.__getitem__)
    if [numbers[name] for name in label_names] != list(range(len(found))):
        raise DatasetError(f"ssv2: the numbers in labels.json are not 0 to {len(found) - 1}. {OBTAIN}")
    files = MediaFiles(root)
    listed: dict[str, list[Source]] = {}
    for split, name in (("train", "train"), ("val", "validation")):
        listed[split] = [_source(files, entry, numbers) for entry in _read(root, name, list)]
    return dataset_of("ssv2", label_names, listed, root=root, obtain=OBTAIN)


def _source(files: MediaFiles, entry: Any, numbers: dict[str, int]) -> Source:
    try:
        number, template = str(entry["id"]), str(entry["template"]).replace("[", "").replace("]", "")
        return Source(id=number, path=files.find(number, Path.is_file), label=numbers[template])
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"ssv2: the entry {str(entry)[:200]} has no id, no template, or one that labels.json lacks. {OBTAIN}"
        ) from error


def _read(root: Path, name: str, kind: type) -> Any:
    long = f"something-something-v2-{name}.json"
    path = first_existing(root, f"{name}.json", long, f"*/{name}.json", f"*/{long}")
    if path is None:
        raise DatasetError(f"ssv2: there is no {name}.json and no {long} in {root} or a folder in it. {OBTAIN}")
    data = read_json(path, OBTAIN)
    if not isinstance(data, kind) or not data:
        raise DatasetError(f"ssv2: {path} holds a {type(data).__name__}, not a filled {kind.__name__}. {OBTAIN}")
    return data
