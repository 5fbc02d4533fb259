"""M3AE: a masked autoencoder of images with texts (Chen et al., 2022, Multi-Modal Masked Autoencoders).

An image and its text are encoded separately, then by fusion blocks in which they attend to each other. Three tasks
share this encoder:

- hidden words are predicted from the visible ones and the whole image, after all fusion blocks;
- hidden patches are predicted from the visible ones and the whole text, after `image_layer` fusion blocks, since pixels
  are more low-level than words; their decoder is a transformer, the words' a linear layer;
- image-text matching: whether a text belongs to an image is predicted from both, with nothing hidden.

Questions are answered by the same encoder, with the head of M3AE and METER (Dou et al., 2022): a layer to the same
width, a layer norm, a GELU, and a layer to the classes. They train it with binary cross-entropy over soft scores of
several annotators; here a sample has one answer, and the loss is its cross-entropy.

Shapes: B samples, N patches, V of them visible, M targets, L tokens of a text, D channels.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.masks.text.replace import TextMaskBatch
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch, TextRows
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.limits import AtLeastTwo, NaturalInt, PositiveInt
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, of_labels, squared, weighted, widen
from maskstream.train.nn.encoder_decoder import TokenDecoder, VisibleEncoder
from maskstream.train.nn.grid import gather_tokens, put_tokens
from maskstream.train.nn.media_tokens import ImagePositions, ImageTokens, build_image_positions
from maskstream.train.nn.token_layers import NO_IDS, TokenHead, TokenIds
from maskstream.train.nn.transformer import (
    INIT_STD,
    MLP,
    BlockSizes,
    FusionBlock,
    NormAt,
    Stack,
    init_linear,
    init_tables,
)

NEEDS = (
    "M3AE trains on masked images, masked texts and pairs; set an image_mask and a text_mask with masks.Replace "
    "and pairs=True"
)


class CLIPImages(nn.Module):
    """The image part of CLIP (Radford et al., 2021): learned positions, and a norm before the blocks."""

    TABLES = ("place",)
    """The parameters that are tables of embeddings, which do not decay."""

    def __init__(self, tokens: ImageTokens, width: int, sizes: BlockSizes) -> None:
        super().__init__()
        self.embed = nn.Linear(tokens.n_inputs, width, bias=False)
        self.class_token = nn.Parameter(torch.empty(width).normal_(std=INIT_STD))
        self.place = nn.Parameter(torch.empty(tokens.n_tokens, width).normal_(std=INIT_STD))
        self.before = nn.LayerNorm(width, eps=sizes.eps)
        self.stack = Stack(sizes.depth, width, sizes.heads, sizes.mlp_ratio, sizes.eps)

    def forward(self, inputs: Tensor, visible: Tensor) -> Tensor:
        """Encode inputs (B, V, values) of the patches `visible` int64 (B, V) to (B, 1 + V, D).

        Args:
            inputs: Values of the patches.
            visible: Indices of the patches.
        """
        x = self.embed(inputs) + self.place[visible]
        x = torch.cat((self.class_token.to(x.dtype).expand(x.shape[0], 1, -1), x), dim=1)
        return cast(Tensor, self.stack(self.before(x)))


class M3AEEncoder(nn.Module):
    """Image: a class token and patches with fixed positions, or CLIP's. Text: ids with learned positions. Each stream
    has a kind embedding before the fusion blocks.
    """

    TABLES = ("kind",)
    """The parameters that are tables of embeddings, which do not decay."""

    def __init__(self, c: ImageTextSizes, grids: Grids) -> None:
        super().__init__()
        (length,) = grids["text"].need("token", by="a model of images with texts")
        self.tokens = tokens = ImageTokens(grids["image"])
        sizes = BlockSizes(c.depth, c.heads, c.mlp_ratio, c.eps)
        post = c.norm == "post"
        self.image = (
            CLIPImages(tokens, c.width, sizes)
            if c.clip
            else VisibleEncoder([tokens.n_inputs], [tokens.positions(c.width)], sizes, class_token=True)
        )
        self.embed = TokenIds(c.vocabulary, c.width, length, learned=True, eps=c.eps)
        self.text = Stack(c.text_depth, c.width, c.heads, c.mlp_ratio, c.eps, post=post)
        self.kind = nn.Parameter(torch.zeros(2, c.width))
        self.blocks = nn.ModuleList(
            FusionBlock(c.width, c.heads, c.mlp_ratio, c.eps, post=post) for _ in range(c.fusion_depth)
        )
        self.norms = nn.ModuleList(nn.Identity() if post else nn.LayerNorm(c.width, eps=c.eps) for _ in range(2))
        self.onto = nn.ModuleList(nn.Linear(c.width, c.width) if c.projected else nn.Identity() for _ in range(2))
        if c.clip:
            use_quick_gelu(self.image)

    def of_images(self, patches: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            patches: Patches uint8 (B, N, values).
            visible: Indices of visible patches, int64 (B, V); None for all.

        Returns:
            (B, 1 + V, D), a class token first.
        """
        if visible is None:
            visible = torch.arange(self.tokens.n_tokens, device=patches.device).expand(patches.shape[0], -1)
        encoded = self.image(self.tokens.inputs(gather_tokens(patches, visible)), visible)
        return cast(Tensor, self.onto[0](encoded) + self.kind[0])

    def encode_texts(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: Token ids int (B, L).
            valid: bool (B, L), False for padding.

        Returns:
            (B, L, D).
        """
        places = torch.arange(ids.shape[1], device=ids.device)
        return cast(Tensor, self.onto[1](self.text(self.embed(ids, places), valid[:, None, None])) + self.kind[1])

    def whole(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Return both streams of a batch with nothing hidden."""
        image = self.of_images(self.tokens.split(batch.image))
        return self.fused(image, self.encode_texts(batch.text.tokens, batch.text.valid), batch.text.valid)

    def fused(self, image: Tensor, text: Tensor, valid: Tensor, blocks: int | None = None) -> tuple[Tensor, Tensor]:
        """Run fusion blocks on both streams, and a last layer norm if all blocks are run.

        Args:
            image: Tokens of the image (B, 1 + V, D).
            text: Tokens of the text (B, L, D).
            valid: bool (B, L), False for padding.
            blocks: Number of fusion blocks to run; None for all.
        """
        mask = valid[:, None, None]
        for block in self.blocks[:blocks]:
            image, text = block(image, text, mask)
        if blocks is not None and blocks < len(self.blocks):
            return image, text
        return self.norms[0](image), self.norms[1](text)


def use_quick_gelu(part: nn.Module) -> None:
    """Switch all MLPs of a module to CLIP's GELU."""
    for module in part.modules():
        if isinstance(module, MLP):
            module.quick = True


class Pooler(nn.Module):
    """The first tokens of both streams, each through a linear layer and a tanh, one behind the other: (B, 2 D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return torch.cat((self.text(text[:, 0]), self.image(image[:, 0])), dim=-1).tanh()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextSizes(ModelConfig[ImageTextBatch], ABC):
    """The sizes of an encoder of images with texts.

    Attributes:
        vocabulary: Number of token ids, at least as many as the split's tokenizer has.
        width: Number of channels.
        depth: Blocks of the image encoder.
        text_depth: Blocks of the text encoder.
        fusion_depth: Blocks of the fusion.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of an MLP per channel.
        eps: Epsilon of all layer norms.
        clip: Whether the image encoder is CLIP's, and the decoder of patches has its GELU.
        norm: Location of the norms in text encoder and fusion.
        projected: Whether a linear layer follows each encoder before the fusion.
    """

    vocabulary: PositiveInt = 30522
    width: PositiveInt = 768
    depth: PositiveInt = 12
    text_depth: PositiveInt = 12
    fusion_depth: PositiveInt = 6
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-6
    clip: bool = False
    norm: NormAt = "pre"
    projected: bool = False

    def validate(self) -> None:
        self.need_heads(of=4)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextAutoencoderConfig(ImageTextSizes):
    """The sizes of M3AE.

    Attributes:
        image_layer: Number of fusion blocks after which patches are predicted.
        decoder_width: Channels of the decoder of patches.
        decoder_depth: Blocks of the decoder of patches.
        decoder_heads: Attention heads of the decoder of patches.
        positions: Positions of the decoder's tokens; see ImagePositions.
        untied: Whether the head of words has a separate table.
    """

    image_layer: NaturalInt = 3
    decoder_width: PositiveInt = 384
    decoder_depth: PositiveInt = 4
    decoder_heads: PositiveInt = 6
    positions: ImagePositions = "rows"
    untied: bool = False

    def validate(self) -> None:
        ImageTextSizes.validate(self)
        if self.image_layer > self.fusion_depth:
            raise ValueError(f"image_layer must be 0 to fusion_depth={self.fusion_depth}, got {self.image_layer}")
        self.need_heads("decoder_width", "decoder_heads", of=4)

    def check(self, data: DataConfig[ImageTextBatch]) -> None:
        """Raise ValueError for data without masks or pairs."""
        if isinstance(data, ImageTextData) and (
            data.image_mask is None or data.text_mask is None or "tokens" not in data.text_mask.needs or not data.pairs
        ):
            raise ValueError(NEEDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedPair:
    """The inputs of the model: patches uint8 (B, N, values), both masks, the text to match, and whether it matches."""

    patches: Tensor
    image: MaskBatch
    text: TextMaskBatch
    pair: TextRows
    match: Tensor


class ImageTextAutoencoder(Model[ImageTextBatch], config=ImageTextAutoencoderConfig):
    """The M3AE model. Linear layers and tables of the text have BERT's initial weights, the image's have MAE's."""

    whole_graph = True

    def __init__(self, config: ImageTextAutoencoderConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.encoder = M3AEEncoder(config, grids)
        self.tokens = self.encoder.tokens
        self.decoder = TokenDecoder(
            c.width,
            [self.tokens.n_targets],
            [build_image_positions(self.tokens.grid, c.decoder_width, c.positions)],
            BlockSizes(c.decoder_depth, c.decoder_heads, c.mlp_ratio, c.eps),
            class_token=True,
            bias=True,
        )
        self.words = TokenHead(c.width, c.vocabulary, c.eps)
        self.table = nn.Linear(c.width, c.vocabulary, bias=False) if c.untied else None
        self.pooler = Pooler(c.width)
        self.match = nn.Linear(2 * c.width, 2)
        self.decoder.init_weights()
        if c.clip:
            use_quick_gelu(self.decoder)
        init_linear(self)
        init_tables(self)

    def read(self, batch: ImageTextBatch) -> MaskedPair:
        """Return the model's inputs of a batch; raise ValueError if it has no masks or pairs."""
        if batch.image_mask is None or batch.text_mask is None or batch.pair is None or batch.match is None:
            raise ValueError(NEEDS)
        if batch.text_mask.tokens is None:
            raise ValueError(NO_IDS)
        return MaskedPair(
            patches=self.tokens.split(batch.image),
            image=batch.image_mask,
            text=batch.text_mask,
            pair=batch.pair,
            match=batch.match,
        )

    def loss(self, batch: ImageTextBatch) -> Losses:
        """Return three losses: cross-entropy of hidden tokens, squared error of hidden patches, and cross-entropy of
        matching, in nats.
        """
        of, (words, judged) = self.read(batch), self.judged(batch)
        label = gather_tokens(batch.text.tokens, of.text.target).long()
        wrong = F.cross_entropy(widen(words).flatten(0, 1), label.flatten(), reduction="none").view_as(label)
        with torch.no_grad():
            expected = self.tokens.targets(gather_tokens(of.patches, of.image.target))
        match = F.cross_entropy(widen(judged), of.match.long(), reduction="none")
        counts = torch.ones_like(match) if batch.weight is None else batch.weight
        return Losses(
            parts={
                "hidden words": weighted(wrong, of.text.weight),
                "hidden patches": squared(self.predict_patches(batch), expected, of.image.weight),
                "matching": weighted(match, counts),
            }
        )

    def judged(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Return the logits of hidden tokens (B, M, vocabulary), and of no match and match (B, 2).

        Both read the whole image, which is encoded once.
        """
        of = self.read(batch)
        image = self.encoder.of_images(of.patches)
        ids = torch.cat((batch.inputs, of.pair.tokens.long()))
        valid = torch.cat((batch.text.valid, of.pair.valid))
        seen, read = self.encoder.fused(image.repeat(2, 1, 1), self.encoder.encode_texts(ids, valid), valid)
        rows = batch.image.shape[0]
        hidden = gather_tokens(read[:rows], of.text.target)
        table = self.encoder.embed.ids if self.table is None else self.table
        words = self.words(hidden, table.weight)
        return words, self.match(self.pooler(seen[rows:], read[rows:]))

    def predict_patches(self, batch: ImageTextBatch) -> Tensor:
        """Predict hidden patches (B, M, values) from the visible ones and the whole text."""
        of = self.read(batch)
        image = self.encoder.of_images(of.patches, of.image.visible)
        text = self.encoder.encode_texts(batch.text.tokens, batch.text.valid)
        seen, _ = self.encoder.fused(image, text, batch.text.valid, self.config.image_layer)
        made: list[Tensor] = self.decoder([seen], [of.image.visible], [of.image.target])
        return made[0]

    def reconstructed(self, batch: ImageTextBatch) -> ImageTextBatch:
        """Return the batch with hidden patches replaced by predictions, and hidden tokens by the most probable ids."""
        of, (words, _) = self.read(batch), self.judged(batch)
        image = self.tokens.paint(batch.image, of.image.target, self.predict_patches(batch))
        before = gather_tokens(batch.text.tokens, of.text.target)
        ids = torch.where(of.text.target_valid, words.argmax(dim=-1).int(), before)
        rows = put_tokens(batch.text.tokens, of.text.target, ids)
        padded = ~of.text.target_valid.all(dim=1)
        if bool(padded.any()):  # padding points to token 0, which is never hidden
            rows[:, 0] = batch.text.tokens[:, 0]
        return replace(batch, image=image, text=replace(batch.text, tokens=rows))

    encoder_parts: ClassVar[tuple[str, ...]] = ("encoder", "pooler")
    """Parts that compute the features."""

    @property
    def feature_width(self) -> int:
        """The width of `features`."""
        return 2 * self.config.width

    def features(self, batch: ImageTextBatch) -> Tensor:
        """Return the pooled features of whole images and texts, float32 (B, 2 D), which the matching head reads."""
        return cast(Tensor, self.pooler(*self.encoder.whole(batch))).float()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextClassifierConfig(ImageTextSizes):
    """The sizes of the encoder; `answers` is the number of classes."""

    needs_labels: ClassVar[bool] = True

    answers: AtLeastTwo = 2

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.answers


class ImageTextClassifier(Model[ImageTextBatch], config=ImageTextClassifierConfig):
    """Scores classes; encoder and pooler have the names of the autoencoder's, so that its weights can be loaded."""

    whole_graph = True

    def __init__(self, config: ImageTextClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.n_answers = config.answers
        self.encoder = M3AEEncoder(config, grids)
        self.pooler = Pooler(config.width)
        both = 2 * config.width
        self.head = nn.Sequential(
            nn.Linear(both, both), nn.LayerNorm(both, eps=config.eps), nn.GELU(), nn.Linear(both, config.answers)
        )
        init_linear(self)
        init_tables(self)

    def scores(self, batch: ImageTextBatch) -> Tensor:
        """Return the logits of the classes, float32 (B, classes); masks hide nothing."""
        return cast(Tensor, self.head(self.pooler(*self.encoder.whole(batch)))).float()

    def loss(self, batch: ImageTextBatch) -> Losses:
        """Return the cross-entropy of the label in nats; samples without a label are ignored."""
        return Losses(parts={"answers": of_labels(self.scores(batch), batch.label)})
