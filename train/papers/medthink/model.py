"""MedThink: an encoder-decoder that writes the answer to a question about an image, and its rationale.

Source: Gai et al. (2024). The loader's target strategy determines the texts and their order
(pipelines/modalities/image_text/strategies.py). One tower reads the image and the question; a causal decoder attends to
its earlier tokens and to all tokens of the tower.

Shapes: B samples, S tokens of image and question, L tokens of the written text, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.limits import Bounds, PositiveInt
from maskstream.train.core.model import Grids, Losses, Model, weighted
from maskstream.train.nn.multiway import Multiway, MultiwayConfig
from maskstream.train.nn.token_layers import TokenHead, TokenIds
from maskstream.train.nn.transformer import CoAttention, init_linear, init_tables

NO_TARGET = 'the model learns to write texts; set a target in the data, such as target=("rationale", "answer")'


@dataclass(frozen=True, kw_only=True, slots=True)
class RationaleWriterConfig(MultiwayConfig):
    """The sizes of tower and decoder, by default T5 base.

    Attributes:
        vocabulary: Number of token ids, at least as many as the split's tokenizer has.
        decoder_depth: Blocks of the decoder.
        eps: Epsilon of the layer norms.
        longest: Largest number of written tokens, at least the data's target_length.
    """

    vocabulary: PositiveInt = 32128
    decoder_depth: PositiveInt = 12
    eps: float = 1e-6
    longest: Annotated[int, Bounds(min=4)] = 256

    def check(self, data: DataConfig[ImageTextBatch]) -> None:
        """Raise ValueError for data without a target, or with a longer one."""
        if isinstance(data, ImageTextData):
            if not data.target:
                raise ValueError(NO_TARGET)
            if data.target_length > self.longest:
                raise ValueError(
                    f"data.target_length={data.target_length} is more than model.longest={self.longest}; raise it"
                )


class RationaleWriter(Model[ImageTextBatch], config=RationaleWriterConfig):
    """MedThink. Linear layers have MAE's initial weights, tables BERT's."""

    whole_graph = True

    def __init__(self, config: RationaleWriterConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.tower = Multiway(c, grids)
        self.ids = TokenIds(c.vocabulary, c.width, c.longest, learned=True, eps=c.eps)
        self.decoder = nn.ModuleList(CoAttention(c.width, c.heads, c.mlp_ratio, c.eps) for _ in range(c.decoder_depth))
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.word = TokenHead(c.width, c.vocabulary, c.eps)
        init_linear(self)
        init_tables(self)

    def unused(self, data: DataConfig[ImageTextBatch]) -> Iterable[nn.Parameter]:
        """See Model."""
        return (self.tower.mask_token,)

    def read(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Return the tower's output for image and text, (B, S, D), and which tokens are real, bool (B, S)."""
        seen, read = self.tower(batch.image, batch.text.tokens, batch.text.valid)
        valid = F.pad(batch.text.valid, (seen.shape[1], 0), value=True)
        return torch.cat((seen, read), dim=1), valid

    def predict_next_words(self, written: Tensor, memory: Tensor, valid: Tensor) -> Tensor:
        """Return the logits of the token after each written one.

        Args:
            written: Written tokens int (B, L).
            memory: The tower's output (B, S, D).
            valid: Real tokens of the tower, bool (B, S).

        Returns:
            (B, L, vocabulary).
        """
        n = written.shape[1]
        causal = torch.ones((n, n), dtype=torch.bool, device=written.device).tril()[None, None]
        x, seen = self.ids(written, torch.arange(n, device=written.device)), valid[:, None, None]
        for block in self.decoder:
            x = block(x, memory, causal, seen)
        return cast(Tensor, self.word(self.norm(x), self.ids.ids.weight))

    def loss(self, batch: ImageTextBatch) -> Losses:
        """Return the cross-entropy of the target's tokens in nats, each predicted from the true ones before it."""
        if batch.target is None:
            raise ValueError(NO_TARGET)
        tokens, valid = batch.target.tokens, batch.target.valid
        logits = self.predict_next_words(tokens[:, :-1], *self.read(batch))
        label = tokens[:, 1:].long()
        wrong = F.cross_entropy(logits.flatten(0, 1).float(), label.flatten(), reduction="none").view_as(label)
        weight = valid[:, 1:].float()
        return Losses(
            parts={"words": weighted(wrong, weight if batch.weight is None else weight * batch.weight[:, None])}
        )

    def written(self, batch: ImageTextBatch, *, begin: int, end: int, texts: int) -> Tensor:
        """Write texts, each token the most probable one.

        A row is finished once it has `texts` tokens `end`; longer rows of the batch pad it with `end`.

        Args:
            batch: The batch.
            begin: Id that begins a text.
            end: Id that ends a text.
            texts: Number of texts to write.

        Returns:
            int64 (B, L), with `begin` first.
        """
        memory, valid = self.read(batch)
        rows = torch.full((len(batch.image), 1), begin, device=batch.image.device)
        for _ in range(self.config.longest - 1):
            done = (rows == end).sum(dim=1) >= texts
            if bool(done.all()):
                break
            best = self.predict_next_words(rows, memory, valid)[:, -1].argmax(dim=-1)
            rows = torch.cat((rows, torch.where(done, end, best)[:, None]), dim=1)
        return rows
