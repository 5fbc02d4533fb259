"""Collate functions that add masks to data of other libraries, in the format of transformers models.

    collate = Collate(mask=Tube(ratio=0.9), grid=TokenGrid.video(16, 224, 224), gives="bool_masked_pos")
    DataLoader(clips, batch_size=8, collate_fn=collate)          # clips[i] is {"key": ..., "pixel_values": ...}

Masks are drawn by sample key (`Mask.of_keys`). The collators hold only settings, so they can be sent to worker
processes. For another epoch, use `dataclasses.replace(collate, epoch=2)`.
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
"""Label of tokens that the loss ignores, as in transformers and torch."""


def _find_key(sample: Mapping[str, Any], name: str) -> str:
    """Return a sample's key.

    Raises:
        ValueError: The sample has no such field.
    """
    if name not in sample:
        raise ValueError(
            f"a sample has no {name!r}, from which its mask is drawn; it has {', '.join(sample) or 'no fields'}. "
            "Set key= to the field with its key"
        )
    return str(sample[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Collate:
    """Stack samples (dicts of tensors and numbers) and add the mask of each, drawn by its key.

    Attributes:
        mask: Mask to draw; it must not need mask inputs.
        grid: Token grid of one sample.
        gives: Format of the mask in the batch. "bool_masked_pos", bool (B, N), suits VideoMAE and masked image models.
            "noise", float32 (B, N), makes ViTMAE keep exactly the visible tokens; its `mask_ratio` must equal the
            mask's. "input_values" suits AST, which has no mask argument: hidden patches of `input_values`, float (B,
            time, freq), are set to `fill`, and `bool_masked_pos` is added in AST's token order (frequency first). AST's
            strides must equal its patch size.
        key: Field with the sample's key; it is removed from the batch.
        seed: Random seed of the masks, as in a loader.
        epoch: Epoch whose masks are drawn, as in a loader.
        fill: Value of hidden patches with gives="input_values".

    Raises:
        ValueError: The mask needs inputs, a sample has no key, or values do not fit the grid.
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
            raise ValueError(f"gives={self.gives!r}: expected {', '.join(map(repr, get_args(Gives)))}")
        if self.gives == "input_values":
            self.grid.need("time", "freq", by='gives="input_values"')

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate samples into one batch."""
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
        """Set hidden patches, bool (B, t, f), of spectrograms, float (B, time, freq), to `fill`."""
        wanted = tuple(n * step for n, step in zip(self.grid.shape, self.grid.patch, strict=True))
        if not isinstance(values, torch.Tensor) or values.shape[1:] != wanted:
            got = f"{tuple(values.shape)}" if isinstance(values, torch.Tensor) else f"{values!r}"
            raise ValueError(
                f"input_values for {self.grid} must be floats of shape (samples, {wanted[0]}, {wanted[1]}), got {got}"
            )
        across, down = self.grid.patch
        return values.masked_fill(places.repeat_interleave(across, 1).repeat_interleave(down, 2), self.fill)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCollate:
    """Pad texts to the longest one and hide tokens, for masked language models of transformers.

    Samples have `input_ids` and either `word_ids` (None for special tokens) or `special_tokens_mask`, both as
    tokenizers of transformers return them. Without `word_ids`, each token is a word. The batch has input_ids,
    attention_mask and labels, int64 (B, N); labels are the original ids at targets and -100 elsewhere.

    Attributes:
        mask: Mask that returns token ids: `Replace` around another mask.
        pad_id: Padding id of the tokenizer.
        key: Field with the sample's key.
        seed: Random seed of the masks, as in a loader.
        epoch: Epoch whose masks are drawn, as in a loader.

    Raises:
        ValueError: The mask returns no token ids, or a sample has no key or no marked special tokens.
    """

    mask: Mask
    pad_id: int
    key: str = "key"
    seed: int = 0
    epoch: int = 0

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate texts into int64 (B, N) tensors."""
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
        """Return a text's input ids and labels, both int64 (n,)."""
        ids = np.asarray(sample["input_ids"], np.int64)
        grid = TokenGrid(axes=("token",), shape=(len(ids),), patch=(1,))
        cues = Cues(tokens=ids, words=_words(sample, len(ids)))
        maps = maps_of(self.mask, grid, Draw.of(self.seed, self.epoch, _find_key(sample, self.key), 0, Place(), cues))
        if not isinstance(maps, TextMaps) or maps.tokens is None:
            raise ValueError(
                f"{self.mask} returns no token ids; wrap it in masks.Replace(mask=..., "
                "mask_id=tokenizer.mask_token_id, vocabulary=len(tokenizer))"
            )
        target = maps.hidden if maps.target is None else maps.target
        return torch.from_numpy(maps.tokens), torch.from_numpy(np.where(target, ids, UNLABELLED))


def _words(sample: Mapping[str, Any], n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the word number of each of n tokens, int64 (n,)."""
    if sample.get("word_ids") is not None:
        return np.array([SPECIAL if word is None else int(word) for word in sample["word_ids"]], np.int64)
    if "special_tokens_mask" not in sample:
        raise ValueError(
            f"a text has neither word_ids nor special_tokens_mask: it has {', '.join(sample) or 'no fields'}. Call the "
            "tokenizer with return_special_tokens_mask=True, or add its word_ids()"
        )
    return np.where(np.asarray(sample["special_tokens_mask"]) != 0, SPECIAL, np.arange(n))
