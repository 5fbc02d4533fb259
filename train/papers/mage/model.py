"""MAGE (Li et al., 2023): one encoder that learns both to represent and to generate images, from masked ids.

A frozen quantiser computes ids of the cells of an image. Some cells are dropped, others enter the encoder as a blank.
The decoder reads the encoder's output for all known cells and the class token's output for all others, whose ids it
predicts. A mask that hides all cells generates an image: ids are filled in over several rounds
(evaluate/hidden_ids.py).

Shapes: B samples, N cells, V of them enter the encoder, M of them are predicted, K ids, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.shards.limits import NaturalFloat, PositiveFloat, PositiveInt, ProperProportion
from maskstream.train.core.model import Grids, Losses, ModelConfig, TokenFeatures, weighted, widen
from maskstream.train.nn.grid import build_grid_positions, gather_tokens, put_tokens
from maskstream.train.nn.objectives import matching
from maskstream.train.nn.quantiser import FrozenQuantiser, QuantiserConfig, check_cells, check_ids
from maskstream.train.nn.token_layers import TokenHead, TokenIds
from maskstream.train.nn.transformer import Stack, init_linear, init_normal

Positions = Literal["learned", "grid"]
"""Position embedding of a cell: a table, or sines and cosines on its axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerativeEncoderConfig(ModelConfig[ImageBatch]):
    """The sizes of the model, by default ViT-B, and its quantiser.

    Attributes:
        vq: The model.safetensors of a run that trained a quantiser (see FrozenQuantiser).
        quantiser: Sizes of the quantiser.
        width: Number of channels.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Attention heads of the decoder.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of all layer norms except the head's.
        head_eps: Epsilon of the head's layer norm.
        smoothing: Label smoothing.
        positions: Positions of cells, "learned" as in the paper, or fixed on the axes of a "grid" (see
            `build_grid_positions`), with which small models learn sooner.
        contrast: Weight of the contrastive loss between two views of an image (MAGE-C, section 3.3), 1 at chance; 0 for
            none.
        temperature: Temperature of the contrastive loss.
        detached: Whether the table of ids is trained only as the encoder's input, as in the authors' code, not as the
            weights of the logits.
    """

    reads_targets: ClassVar[bool] = True

    vq: str | None = "runs/vq-tiny/model.safetensors"
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    decoder_depth: PositiveInt = 8
    decoder_heads: PositiveInt = 16
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    head_eps: float = 1e-6
    smoothing: ProperProportion = 0.1
    positions: Positions = "learned"
    contrast: NaturalFloat = 0.0
    temperature: PositiveFloat = 0.2
    detached: bool = False

    def validate(self) -> None:
        for heads in ("heads", "decoder_heads"):
            self.need_heads(heads=heads)

    def check(self, data: DataConfig[ImageBatch]) -> None:
        """Raise ValueError if `contrast` lacks second views, or stored ids come from another quantiser."""
        check_ids(data, self.vq)
        if self.contrast and isinstance(data, ImageData) and data.views != 2:
            raise ValueError(f"model.contrast={self.contrast} compares two views, got data.views={data.views}; use 2")

    def make(self, grids: Grids) -> GenerativeEncoder:
        """See ModelConfig."""
        check_cells(self.quantiser, grids, "image")
        return GenerativeEncoder(self, grids)


class GenerativeEncoder(TokenFeatures[ImageBatch]):
    """The model; `blank` is the id of a cell that enters the encoder without its content."""

    whole_graph = True

    grid: Tensor

    def __init__(self, config: GenerativeEncoderConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.n, self.blank = grids["image"].size, c.quantiser.codes
        self.vq = FrozenQuantiser(c.quantiser, c.vq)
        learned = c.positions == "learned"
        self.embed = TokenIds(self.blank + 2, c.width, self.n + 1, learned=learned, eps=c.eps)
        self.encoder = Stack(c.depth, c.width, c.heads, c.mlp_ratio, c.eps)
        self.bridge = nn.Linear(c.width, c.width)
        self.places = nn.Embedding(self.n + 1, c.width) if learned else None
        grid = torch.zeros(self.n + 1, c.width)
        if not learned:
            grid[1:] = build_grid_positions(grids["image"].shape, c.width)
        self.register_buffer("grid", grid, persistent=False)
        self.decoder = Stack(c.decoder_depth, c.width, c.decoder_heads, c.mlp_ratio, c.eps)
        self.head = TokenHead(c.width, self.blank, c.head_eps)
        self.match = (
            nn.Sequential(nn.Linear(c.width, c.width), nn.GELU(), nn.Linear(c.width, c.width)) if c.contrast else None
        )
        init_normal(self)
        init_linear(self)

    def loss(self, batch: ImageBatch) -> Losses:
        """Return the cross-entropy of the hidden ids with smoothed labels, and the contrastive loss of two views."""
        ids, mask = self.ids(batch), need_mask(batch)
        encoded = self.encode(ids, mask.visible, mask.mask_token)
        logits = self.predicted(encoded, mask)
        wanted = ids.gather(1, mask.target)
        errors = F.cross_entropy(
            widen(logits).transpose(1, 2), wanted, reduction="none", label_smoothing=self.config.smoothing
        )
        parts = {"hidden ids": weighted(errors, mask.weight)}
        if self.match is not None:
            views = F.normalize(widen(self.match(encoded[:, 1:].mean(dim=1))), dim=1)
            parts["views"] = matching(views[0::2], views[1::2], self.config.temperature, self.config.contrast)
        return Losses(parts=parts)

    def ids(self, batch: ImageBatch) -> Tensor:
        """Return the ids of a batch's cells, int64 (B, N)."""
        return self.vq.ids(batch.image, batch.fields).flatten(1)

    def encode(self, ids: Tensor, visible: Tensor, blank: Tensor | None = None) -> Tensor:
        """Encode cells.

        Args:
            ids: Ids of all cells, int (B, N).
            visible: Indices of the cells that enter, (B, V).
            blank: Cells that enter without their content, bool (B, N).

        Returns:
            (B, 1 + V, D), the class token first.
        """
        known = ids if blank is None else ids.masked_fill(blank, self.blank)
        entered = F.pad(known.gather(1, visible), (1, 0), value=self.blank + 1)
        places = F.pad(visible + 1, (1, 0))
        return cast(Tensor, self.encoder(self.embed(entered, places) + self.grid[places]))

    def predicted(self, encoded: Tensor, mask: MaskBatch) -> Tensor:
        """Return the logits (B, M, K) of the masks' targets, from the encoder's output (B, 1 + V, D) for the visible
        cells.

        Args:
            encoded: The encoder's output.
            mask: Masks of the batch.
        """
        hidden = torch.zeros_like(mask.masked).scatter_(1, mask.target, True)
        return self._predict(encoded, mask.visible, hidden, mask.target.shape[1])

    def predict(self, ids: Tensor, hidden: Tensor, m: int) -> Tensor:
        """Return the logits of hidden cells, in order; all cells enter the encoder, hidden ones as blanks.

        Args:
            ids: Ids of all cells, int (B, N).
            hidden: Hidden cells, bool (B, N), m in each row.
            m: Number of hidden cells of a row.

        Returns:
            (B, m, K).
        """
        everywhere = torch.arange(self.n, device=ids.device).expand(ids.shape[0], -1)
        return self._predict(self.encode(ids, everywhere, hidden), everywhere, hidden, m)

    def _predict(self, encoded: Tensor, visible: Tensor, hidden: Tensor, m: int) -> Tensor:
        """Return the logits (B, m, K) of the hidden cells, from the encoder's output (B, 1 + V, D) for the visible
        ones.
        """
        seen = self.bridge(encoded)
        whole, places = seen[:, :1], self.grid if self.places is None else self.places.weight
        cells = put_tokens(whole.expand(-1, self.n, -1), visible, seen[:, 1:])
        cells = torch.where(hidden[:, :, None], whole, cells) + places[1:]
        known_first = hidden.to(torch.uint8).argsort(dim=1, stable=True)
        x = torch.cat((whole + places[0], gather_tokens(cells, known_first)), dim=1)
        table = self.embed.ids.weight[: self.blank]
        table = table.detach() if self.config.detached else table
        return cast(Tensor, self.head(self.decoder(x, last=m), table))

    def reconstructed(self, batch: ImageBatch) -> ImageBatch:
        """Return the images decoded from the ids, with the most probable id in each hidden cell."""
        ids, mask = self.ids(batch), need_mask(batch)
        encoded = self.encode(ids, mask.visible, mask.mask_token)
        logits = self.predicted(encoded, mask)
        return replace(batch, image=self.drawn(ids.scatter(1, mask.target, logits.argmax(dim=2))))

    def drawn(self, ids: Tensor) -> Tensor:
        """Return the images uint8 (B, H, W, 3) of ids int64 (B, N)."""
        return self.vq.decode(ids.view(len(ids), *self.grids["image"].shape))

    def token_inputs(self, batch: ImageBatch) -> Tensor:
        """Return the rounded latent of each cell, float32 (B, N, channels)."""
        return self.vq.rounded(batch.image).flatten(2).transpose(1, 2)

    def token_features(self, batch: ImageBatch) -> Tensor:
        """Return the encoder's output (B, N, D) for all cells, none of them hidden."""
        everywhere = torch.arange(self.n, device=batch.image.device).expand(batch.image.shape[0], -1)
        return self.encode(self.ids(batch), everywhere)[:, 1:]

    encoder_parts: ClassVar[tuple[str, ...]] = ("vq", "embed", "encoder")
    """Parts that compute the features."""


def need_mask(batch: ImageBatch) -> MaskBatch:
    """Return the masks of a batch; raise ValueError if it has none, or its samples have different counts."""
    if batch.mask is None:
        raise ValueError(
            "the model learns hidden ids, but the batch has no mask; pass mask=masks.DropAndMask() to the loader"
        )
    if batch.mask.n_target is not None:
        raise ValueError(
            "the model requires masks with equal counts within a batch, got padded masks; use a ratio sampler with "
            "scope='batch'"
        )
    return batch.mask
