"""MAGE (Li et al., 2023): one encoder that learns to represent pictures and to generate them, from masked ids.

A frozen quantiser makes ids of the cells of a picture. Some cells are dropped, others enter the encoder as a blank. The
decoder sees the encoder's output in all cells that are known, that of the class token in all others, and predicts the
ids of these. A mask that hides all gives a picture from nothing: ids are filled in over several rounds
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
from maskstream.train.core.model import Grids, Losses, ModelConfig, TokenFeatures, weighted, widen
from maskstream.train.nn.grid import build_grid_positions, gather_tokens, put_tokens
from maskstream.train.nn.objectives import matching
from maskstream.train.nn.quantiser import FrozenQuantiser, QuantiserConfig, check_cells, check_ids
from maskstream.train.nn.token_layers import TokenHead, TokenIds
from maskstream.train.nn.transformer import Stack, init_linear, init_normal

Positions = Literal["learned", "grid"]
"""Where a cell stands: a table, or sines and cosines on its axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerativeEncoderConfig(ModelConfig[ImageBatch]):
    """The sizes of the model, and its quantiser; the defaults are those of ViT-B.

    vq: the model.safetensors of a run that trained a quantiser (see FrozenQuantiser); quantiser: its sizes. smoothing:
    of the labels. positions: of cells, "learned" as in the paper, or fixed on the axes of a "grid" (see
    `build_grid_positions`), which small models learn from sooner. contrast: the share of the loss that tells two views
    of a picture from those of others (MAGE-C, section 3.3), 0 for none; temperature: of that loss, which is 1 at
    chance.
    detached: whether the table of ids learns as the encoder's input alone, as in the authors' code, and not as the
    weights of the logits. eps: of all layer norms except the head's, whose epsilon is head_eps.
    """

    reads_targets: ClassVar[bool] = True

    vq: str | None = "runs/vq-tiny/model.safetensors"
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_depth: int = 8
    decoder_heads: int = 16
    mlp_ratio: int = 4
    eps: float = 1e-6
    head_eps: float = 1e-6
    smoothing: float = 0.1
    positions: Positions = "learned"
    contrast: float = 0.0
    temperature: float = 0.2
    detached: bool = False

    def validate(self) -> None:
        for heads in ("heads", "decoder_heads"):
            self.need_heads(heads=heads)
        self.need_least("depth", "decoder_depth", "mlp_ratio")
        self.need_choices(positions=Positions)
        if not 0 <= self.smoothing < 1 or self.contrast < 0 or self.temperature <= 0:
            raise ValueError(
                "smoothing must lie in [0, 1), contrast be 0 or more and temperature above 0, got "
                f"{self.smoothing}, {self.contrast}, {self.temperature}"
            )

    def check(self, data: DataConfig[ImageBatch]) -> None:
        """ValueError where contrast has no second views, and for ids in shards of another quantiser."""
        check_ids(data, self.vq)
        if self.contrast and isinstance(data, ImageData) and data.views != 2:
            raise ValueError(f"model.contrast={self.contrast} compares two views, got data.views={data.views}; use 2")

    def make(self, grids: Grids) -> GenerativeEncoder:
        """See ModelConfig."""
        check_cells(self.quantiser, grids, "image")
        return GenerativeEncoder(self, grids)


class GenerativeEncoder(TokenFeatures[ImageBatch]):
    """The model. blank: the id of a cell that enters the encoder without its content."""

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
        """The cross-entropy of the hidden ids with smoothed labels, and how well two views are told from others."""
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
        """The ids of a batch's cells, int64 (B, N)."""
        return self.vq.ids(batch.image, batch.fields).flatten(1)

    def encode(self, ids: Tensor, visible: Tensor, blank: Tensor | None = None) -> Tensor:
        """The encoder's output (B, 1 + V, D), that of the class token first, for the cells `visible` (B, V) of ids int
        (B, N). blank: bool (B, N), the cells that enter without their content.
        """
        known = ids if blank is None else ids.masked_fill(blank, self.blank)
        entered = F.pad(known.gather(1, visible), (1, 0), value=self.blank + 1)
        places = F.pad(visible + 1, (1, 0))
        return cast(Tensor, self.encoder(self.embed(entered, places) + self.grid[places]))

    def predicted(self, encoded: Tensor, mask: MaskBatch) -> Tensor:
        """The logits (B, M, K) of masks' targets, from the encoder's output (B, 1 + V, D) for the visible cells."""
        hidden = torch.zeros_like(mask.masked).scatter_(1, mask.target, True)
        return self._predict(encoded, mask.visible, hidden, mask.target.shape[1])

    def predict(self, ids: Tensor, hidden: Tensor, m: int) -> Tensor:
        """The logits (B, m, K) of the cells `hidden` bool (B, N), m in each row, in their order; all cells enter the
        encoder, these as blanks.
        """
        everywhere = torch.arange(self.n, device=ids.device).expand(ids.shape[0], -1)
        return self._predict(self.encode(ids, everywhere, hidden), everywhere, hidden, m)

    def _predict(self, encoded: Tensor, visible: Tensor, hidden: Tensor, m: int) -> Tensor:
        """The logits (B, m, K) of the hidden cells, from the encoder's output (B, 1 + V, D) for the visible ones."""
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
        """The pictures that are drawn from the ids, of which each hidden one is the most probable."""
        ids, mask = self.ids(batch), need_mask(batch)
        encoded = self.encode(ids, mask.visible, mask.mask_token)
        logits = self.predicted(encoded, mask)
        return replace(batch, image=self.drawn(ids.scatter(1, mask.target, logits.argmax(dim=2))))

    def drawn(self, ids: Tensor) -> Tensor:
        """The pictures uint8 (B, H, W, 3) of ids int64 (B, N)."""
        return self.vq.decode(ids.view(len(ids), *self.grids["image"].shape))

    def token_inputs(self, batch: ImageBatch) -> Tensor:
        """What the model reads of each cell: its rounded latent, float32 (B, N, channels)."""
        return self.vq.rounded(batch.image).flatten(2).transpose(1, 2)

    def token_features(self, batch: ImageBatch) -> Tensor:
        """The encoder's output for all cells, none of them hidden: (B, N, D)."""
        everywhere = torch.arange(self.n, device=batch.image.device).expand(batch.image.shape[0], -1)
        return self.encode(self.ids(batch), everywhere)[:, 1:]

    encoder_parts: ClassVar[tuple[str, ...]] = ("vq", "embed", "encoder")
    """What its features are made by."""


def need_mask(batch: ImageBatch) -> MaskBatch:
    """The masks of a batch. ValueError where it has none, or its samples have different counts."""
    if batch.mask is None:
        raise ValueError("the model learns hidden ids, and the batch has no mask; give the loader masks.DropAndMask()")
    if batch.mask.n_target is not None:
        raise ValueError(
            "the model takes masks with equal counts in a batch, got padded ones; use a law of scope='batch'"
        )
    return batch.mask
