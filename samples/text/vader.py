"""Sentences with the mean of their ratings by twenty people: about films, news, tweets and products.

`rating` in a document's `json` lies in [-4, 4], from very negative to very positive. The label is the origin of the
sentence. The sentences of a review or an editorial have ids such as 12_3, and are in the same split.

Hutto and Gilbert, VADER, ICWSM 2014. Package and licence: vaderSentiment (MIT).
"""

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.samples.packages import Package, fetch
from maskstream.shards.errors import DatasetError

from .kept_lines import choose_split, kept_lines

VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source=True,
)
MEMBER = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "movieReviewSnippets": "film",
    "nytEditorialSnippets": "news",
    "tweets": "tweet",
    "amazonReviewSnippets": "product",
}
HELD_OUT = 0.15


def vader(root: Path) -> Dataset:
    """Read the sentences, downloaded into `root`; DatasetError where that is not possible."""
    return kept_lines("vader", root, lambda root: lines(fetch(VADER, (MEMBER,), root)[MEMBER].read_bytes()))


def lines(archive: bytes) -> Iterator[Mapping[str, Any]]:
    """Return the sentences in the files of an archive. Raises DatasetError if one is missing."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {Path(member.name).name: member for member in tar if member.isfile()}
        for name, label in FILES.items():
            member = found.get(f"{name}_GroundTruth.txt")
            opened = None if member is None else tar.extractfile(member)
            if opened is None:
                raise DatasetError(f"vader: the archive contains no {name}_GroundTruth.txt")
            for line in opened.read().decode("utf-8", "replace").splitlines():
                key, rating, text = (*line.split("\t", 2), "", "")[:3]
                if text.strip():
                    split = choose_split(f"{label} {key.partition('_')[0]}", HELD_OUT)
                    yield {
                        "id": f"{label}:{key}",
                        "text": text.strip(),
                        "label": label,
                        "split": split,
                        "rating": float(rating),
                    }
