"""Texts as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .documents import jsonl, parquet_text
from .txt import txt

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "jsonl": jsonl,
    "parquet-text": parquet_text,
    "txt": txt,
}
