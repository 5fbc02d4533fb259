"""Texts as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .dictionaries import foldoc, gcide
from .documents import jsonl, parquet_text
from .linux_doc import linux_doc
from .shakespeare import shakespeare
from .spam_assassin import spam_assassin
from .txt import txt
from .vader import vader

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "foldoc": foldoc,
    "gcide": gcide,
    "jsonl": jsonl,
    "linux-doc": linux_doc,
    "parquet-text": parquet_text,
    "sample-text": shakespeare,
    "shakespeare": shakespeare,
    "spam-assassin": spam_assassin,
    "txt": txt,
    "vader": vader,
}
