"""ESC-50 as its author publishes it: `meta/esc50.csv` and `audio/*.wav` below ROOT, or one folder down.

The five folds are for cross-validation: the chosen fold is the split val, the others are train.

K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015.
"""

from __future__ import annotations

from pathlib import Path

from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.raw.lists import read_table
from maskstream.preprocess.source import Source
from maskstream.shards.errors import DatasetError

from .dataset import Dataset, dataset_of, first_existing, in_archives, require_folder

OBTAIN = "Get github.com/karolpiczak/ESC-50 and lay it out as ROOT/meta/esc50.csv and ROOT/audio/*.wav"
COLUMNS = ("filename", "fold", "target", "category")


@in_archives(".csv")
def esc50(root: Path, *, fold: int = 1) -> Dataset:
    """The splits with one fold (1 to 5) as val. Raises DatasetError for another layout, ValueError for another fold."""
    if not 1 <= fold <= 5:
        raise ValueError(f"ESC-50 has the folds 1 to 5, got {fold=}")
    name = "esc50" if fold == 1 else f"esc50-{fold}"
    require_folder(root, name=name, obtain=OBTAIN)
    table = first_existing(root, "meta/esc50.csv", "*/meta/esc50.csv")
    if table is None:
        raise DatasetError(f"{name}: there is no meta/esc50.csv in {root} or a folder in it. {OBTAIN}")
    rows = list(read_table(table, COLUMNS, obtain=OBTAIN))
    names = {row.number("target"): row["category"] for row in rows}
    listed: dict[str, list[Source]] = {"train": [], "val": []}
    for row in rows:
        path = table.parent.parent / "audio" / row["filename"]
        source = Source(id=row["filename"], path=path, label=row.number("target"))
        listed["val" if row.number("fold") == fold else "train"].append(source)
    label_names = [names.get(number, str(number)) for number in range(max(names, default=-1) + 1)]
    return dataset_of(name, label_names, listed, root=root, obtain=OBTAIN, encoder=AudioEncoder())
