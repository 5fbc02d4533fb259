"""torch's DataLoader over any data set of one's own, whose collate function adds the masks that a model takes.

python collates.py     # pip install transformers

The data are random numbers. Each function gives a model of transformers and the loader of what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

from maskstream.pipelines import masks

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DECODER = {f"decoder_{name}": value for name, value in SMALL.items()}
PAD, CLS, SEP, MASK, VOCABULARY = 0, 1, 2, 3, 100
Pair = tuple[PreTrainedModel, DataLoader[Any]]


def samples(*shape: int, name: str = "pixel_values") -> list[dict[str, Any]]:
    """Stands for a data set: a list, or anything else with samples that are dicts with a key."""
    rng = torch.Generator().manual_seed(0)
    return [{"key": f"sample-{n}", name: torch.rand(shape, generator=rng)} for n in range(8)]


def video_mae(epoch: int = 0) -> Pair:
    """Tubes for VideoMAE, as `bool_masked_pos`."""
    grid = masks.TokenGrid.video(4, 32, 32, patch=8)
    collate = masks.Collate(mask=masks.Tube(ratio=0.75), grid=grid, epoch=epoch)
    config = VideoMAEConfig(num_frames=4, image_size=32, patch_size=8, tubelet_size=2, **SMALL, **DECODER)
    return VideoMAEForPreTraining(config), DataLoader(samples(4, 3, 32, 32), batch_size=4, collate_fn=collate)


def vit_mae(epoch: int = 0) -> Pair:
    """Blocks for ViTMAE, which draws its own masks of the `noise` that it is given."""
    grid = masks.TokenGrid(axes=("h", "w"), shape=(4, 4), patch=(8, 8))
    blocks = masks.Block(ratio=masks.UniformCount(low=12, high=12))
    collate = masks.Collate(mask=blocks, grid=grid, gives="noise", epoch=epoch)
    config = ViTMAEConfig(image_size=32, patch_size=8, mask_ratio=0.75, **SMALL, **DECODER)
    return ViTMAEForPreTraining(config), DataLoader(samples(3, 32, 32), batch_size=4, collate_fn=collate)


class MaskedAST(ASTModel):
    """Takes `bool_masked_pos` too, and gives what it made of each hidden token, for a loss."""

    def forward(self, input_values: torch.Tensor, bool_masked_pos: torch.Tensor, **_: Any) -> Any:
        found = super().forward(input_values)
        return {"hidden": found.last_hidden_state[:, 2:][bool_masked_pos]}


def ast(epoch: int = 0) -> Pair:
    """Patches for AST, which takes no mask: they are filled in the spectrogram itself."""
    grid = masks.TokenGrid(axes=("time", "freq"), shape=(8, 4), patch=(16, 16))
    collate = masks.Collate(mask=masks.Random(ratio=0.5), grid=grid, gives="input_values", epoch=epoch)
    config = ASTConfig(max_length=128, num_mel_bins=64, time_stride=16, frequency_stride=16, **SMALL)
    data = samples(128, 64, name="input_values")
    return MaskedAST(config), DataLoader(data, batch_size=4, collate_fn=collate)


def bert(epoch: int = 0) -> Pair:
    """Whole words for BERT, with labels; texts are padded to the longest of a batch."""
    rng = torch.Generator().manual_seed(0)
    texts = []
    for n in range(8):
        ids = torch.randint(4, VOCABULARY, (10 + n,), generator=rng).tolist()
        words = [number // 2 for number in range(len(ids))]  # a tokenizer's word_ids()
        texts.append({"key": f"text-{n}", "input_ids": [CLS, *ids, SEP], "word_ids": [None, *words, None]})
    replace = masks.Replace(mask=masks.WholeWords(ratio=0.3), mask_id=MASK, vocabulary=VOCABULARY)
    collate = masks.TextCollate(mask=replace, pad_id=PAD, epoch=epoch)
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **SMALL)
    return BertForMaskedLM(config), DataLoader(texts, batch_size=4, collate_fn=collate)


MODELS: dict[str, Callable[..., Pair]] = {"VideoMAE": video_mae, "ViTMAE": vit_mae, "AST": ast, "BERT": bert}


def results() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """What each model makes of its first batch: name, batch, result."""
    for name, make in MODELS.items():
        model, loader = make()
        batch = next(iter(loader))
        yield name, batch, model(**batch)


if __name__ == "__main__":
    for name, batch, result in results():
        print(name, {key: tuple(value.shape) for key, value in batch.items()}, list(result))
