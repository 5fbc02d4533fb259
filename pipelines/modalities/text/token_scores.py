"""Token scores by sample key: a side file of a split, for masks that read them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load, save

from maskstream.shards.arrays import Float32s
from maskstream.shards.config import NOT_IDENTITY, Config
from maskstream.shards.stores.local_files import publish


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScores(Config):
    """A file of token scores, float32 (tokens,) per sample, for masks such as `TopScores`.

    Scores refer to a sample's first tokens, without special ones; later tokens have -inf, which is never hidden, and
    +inf is hidden first.

    Attributes:
        file: Path of the file, created by `written`.
        checksum: xxh3_64 of the file; read from it if empty. Part of a loader's identity, unlike the path.

    Raises:
        ValueError: The file is missing, does not match the checksum, or contains no scores.
    """

    file: str = field(metadata=NOT_IDENTITY)
    checksum: str = ""

    def validate(self) -> None:
        try:
            found = xxhash.xxh3_64_hexdigest(Path(self.file).read_bytes())
        except OSError as error:
            raise ValueError(f"the scores {self.file} cannot be read: {error}") from error
        if self.checksum not in ("", found):
            raise ValueError(f"the scores {self.file} have the checksum {found}, not {self.checksum}")
        object.__setattr__(self, "checksum", found)

    @classmethod
    def written(cls, scores: Mapping[str, Float32s], file: str | Path) -> Self:
        """Write scores, float32 (tokens,) by sample key, without NaN, to a file."""
        if wrong := [key for key, own in scores.items() if own.ndim != 1 or np.isnan(own).any()]:
            raise ValueError(
                f"the scores of sample {wrong[0]!r} are {scores[wrong[0]]}; pass one number for each token"
            )
        edges = np.cumsum([0, *map(len, scores.values())], dtype=np.int64)
        values = np.concatenate([np.zeros(0, np.float32), *scores.values()]).astype(np.float32)
        publish(Path(file), save({"scores": values, "edges": edges}, {"keys": json.dumps(list(scores))}))
        return cls(file=str(file))

    def of(self, key: str) -> Float32s:
        """Return the scores of a sample's first tokens, float32 (tokens,).

        Raises:
            ValueError: The sample has no scores.
        """
        try:
            return _read(self.file, self.checksum)[key]
        except KeyError as error:
            raise ValueError(
                f"{self.file} has no scores for sample {key!r}; pass scores for all samples in use"
            ) from error

    def in_row(self, key: str, begin: int, count: int, length: int) -> Float32s:
        """Return the scores (length,) of a row whose tokens from `begin` on are the sample's first `count`; -inf
        elsewhere.
        """
        row = np.full(length, -np.inf, np.float32)
        own = self.of(key)[:count]
        row[begin : begin + len(own)] = own
        return row


@lru_cache(maxsize=2)
def _read(file: str, checksum: str) -> Mapping[str, Float32s]:
    data = Path(file).read_bytes()
    try:
        tensors = load(data)
        keys = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["keys"])
        scores, edges = tensors["scores"], tensors["edges"].tolist()
        return {key: scores[a:b] for key, a, b in zip(keys, edges[:-1], edges[1:], strict=True)}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} does not contain token scores ({error}); write them with TokenScores.written"
        ) from error
