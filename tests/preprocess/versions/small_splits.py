"""Small splits of samples that nothing decodes, for the tests of versions."""

from __future__ import annotations

from pathlib import Path

from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.text import json_member


def written(
    folder: Path, first: int, names: tuple[str, ...] = ("x", "y"), n: int = 6, lone: int = -1, **info: object
) -> Path:
    """A split of n samples with the keys k{first} and following, in shards of three. lone: the number of the sample
    that has the third label.
    """
    folder.mkdir(parents=True)
    settings = {"dataset": "toy", "split": "train", "modality": "image", "profile": "p", "label_names": names} | info
    samples = [
        Sample(
            key=f"k{first + i}",
            members={"json": json_member({"number": first + i})},
            source=f"s{first + i}",
            label=2 if i == lone else i % 2 if names else i,
            sums={"ones": [1.0, 0.1]},
        )
        for i in range(n)
    ]
    groups = [samples[at : at + 3] for at in range(0, n, 3)]
    name = settings["dataset"]
    records = [write_shard(folder / f"{name}-{number:06d}.tar", group) for number, group in enumerate(groups)]
    rejects = [Reject(source=f"r{first}", stage="open", reason="x")]
    finish_split(folder, DatasetInfo(**settings), records, rejects)  # type: ignore[arg-type]
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
