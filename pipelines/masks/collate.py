"""Collate functions for the data of other libraries: batches as models of transformers take them, with our masks.

    collate = Collate(mask=Tube(ratio=0.9), grid=TokenGrid.video(16, 224, 224), gives="bool_masked_pos")
    DataLoader(clips, batch_size=8, collate_fn=collate)          # clips[i] is {"key": ..., "pixel_values": ...}

A sample's mask is that of its key, as `Mask.of_keys` draws it. They hold settings only, so they go to workers as they
are; for another epoch take `dataclasses.replace(collate, epoch=2)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from maskstream.pipelines.stream.rng import Place
from maskstream.pipelines.stream.tensors import torch

from .core import Cues, Draw, Mask, TokenGrid, maps_of
from .text.replace import TextMaps
from .text.words import SPECIAL

if TYPE_CHECKING:
    from torch import Tensor

Gives = Literal["bool_masked_pos", "noise", "input_values"]
UNLABELLED = -100
"""The label of tokens that no loss is taken of, as transformers and torch have it."""


def _find_key(sample: Mapping[str, Any], name: str) -> str:
    """The key of a sample; ValueError where it has none."""
    if name not in sample:
        raise ValueError(
            f"a sample has no {name!r}, by which its mask is drawn, but {', '.join(sample) or 'nothing'}; name the "
            "field with key="
        )
    return str(sample[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Collate:
    """Stacks samples, dicts of tensors and numbers, and adds the mask of each by its key.

    gives: what the model takes. "bool_masked_pos", bool (B, N), is for VideoMAE, and for models of masked images. With
    "noise", float32 (B, N), ViTMAE keeps the tokens that the mask leaves visible; its `mask_ratio` must be that of the
    mask. "input_values" is for AST, which takes no mask: in `input_values`, float (B, time, freq), of the samples the
    hidden patches become `fill`, and bool_masked_pos is added in its order of tokens, frequencies first; its strides
    must be its patch size. key: the field of a sample that names it, which the batch does not have. seed, epoch: as of
    a loader.

    ValueError for a mask that reads cues, for samples without a key, and for values that do not fit the grid.
    """

    mask: Mask
    grid: TokenGrid
    gives: Gives = "bool_masked_pos"
    key: str = "key"
    seed: int = 0
    epoch: int = 0
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.gives not in get_args(Gives):
            raise ValueError(f"gives={self.gives!r}: legal are {', '.join(map(repr, get_args(Gives)))}")
        if self.gives == "input_values":
            self.grid.need("time", "freq", by='gives="input_values"')

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of some samples."""
        keys = [_find_key(sample, self.key) for sample in samples]
        batch: dict[str, Any] = torch.utils.data.default_collate(
            [{name: value for name, value in sample.items() if name != self.key} for sample in samples]
        )
        mask = self.mask.of_keys(self.grid, keys, seed=self.seed, epoch=self.epoch)
        if self.gives == "noise":
            return {**batch, "noise": mask.restore.float()}
        if self.gives == "bool_masked_pos":
            return {**batch, "bool_masked_pos": mask.masked}
        places = mask.masked.view(-1, *self.grid.shape)
        return {
            **batch,
            "input_values": self._fill_hidden(batch.get("input_values"), places),
            "bool_masked_pos": places.transpose(1, 2).flatten(1),
        }

    def _fill_hidden(self, values: object, places: Tensor) -> Tensor:
        """Spectrograms, float (B, time, freq), whose hidden patches, bool (B, t, f), are filled."""
        wanted = tuple(n * step for n, step in zip(self.grid.shape, self.grid.patch, strict=True))
        if not isinstance(values, torch.Tensor) or values.shape[1:] != wanted:
            got = f"{tuple(values.shape)}" if isinstance(values, torch.Tensor) else f"{values!r}"
            raise ValueError(
                f"input_values of {self.grid} are floats of the shape (samples, {wanted[0]}, {wanted[1]}), got {got}"
            )
        across, down = self.grid.patch
        return values.masked_fill(places.repeat_interleave(across, 1).repeat_interleave(down, 2), self.fill)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCollate:
    """Pads texts to the longest and hides tokens, for the masked language models of transformers.

    Samples have `input_ids`, and `word_ids`, with None for special tokens, or `special_tokens_mask`, as tokenizers of
    transformers give both; without words each token is one. The batch has input_ids, attention_mask and labels, int64
    (B, N): labels are the original ids of the targets, and -100 elsewhere.

    mask: one that gives token ids, `Replace` of another. pad_id: the tokenizer's. key, seed, epoch: as of `Collate`.
    ValueError for another mask, and for samples without a key or special tokens.
    """

    mask: Mask
    pad_id: int
    key: str = "key"
    seed: int = 0
    epoch: int = 0

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of some texts, int64 (B, N) each."""
        rows = [self._row(sample) for sample in samples]
        longest = max(len(tokens) for tokens, _ in rows)
        lengths = torch.tensor([len(tokens) for tokens, _ in rows])
        tokens, labels = (
            torch.stack(
                [torch.nn.functional.pad(row[column], (0, longest - len(row[column])), value=value) for row in rows]
            )
            for column, value in enumerate((self.pad_id, UNLABELLED))
        )
        return {
            "input_ids": tokens,
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
            "labels": labels,
        }

    def _row(self, sample: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """What the model reads of a text, and its labels, both int64 (n,)."""
        ids = np.asarray(sample["input_ids"], np.int64)
        grid = TokenGrid(axes=("token",), shape=(len(ids),), patch=(1,))
        cues = Cues(tokens=ids, words=_words(sample, len(ids)))
        maps = maps_of(self.mask, grid, Draw.of(self.seed, self.epoch, _find_key(sample, self.key), 0, Place(), cues))
        if not isinstance(maps, TextMaps) or maps.tokens is None:
            raise ValueError(
                f"{self.mask} gives no token ids; put it into masks.Replace(mask=..., mask_id=tokenizer.mask_token_id, "
                "vocabulary=len(tokenizer))"
            )
        target = maps.hidden if maps.target is None else maps.target
        return torch.from_numpy(maps.tokens), torch.from_numpy(np.where(target, ids, UNLABELLED))


def _words(sample: Mapping[str, Any], n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The word of each of n tokens, int64 (n,)."""
    if sample.get("word_ids") is not None:
        return np.array([SPECIAL if word is None else int(word) for word in sample["word_ids"]], np.int64)
    if "special_tokens_mask" not in sample:
        raise ValueError(
            f"a text does not say which of its tokens are special: it has {', '.join(sample) or 'nothing'}; call the "
            "tokenizer with return_special_tokens_mask=True, or add its word_ids()"
        )
    return np.where(np.asarray(sample["special_tokens_mask"]) != 0, SPECIAL, np.arange(n))
