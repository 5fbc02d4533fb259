"""Data config and loader of texts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np

from maskstream.pipelines.masks import Mask, Replace, TokenGrid
from maskstream.pipelines.masks.text.replace import OF_THE_SPLIT
from maskstream.pipelines.modalities.data import SplitConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.split import Options, Split, Splits
from maskstream.pipelines.stream.loader import Loader
from maskstream.shards.arrays import Int64s
from maskstream.shards.format.component import Component
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts, read_tokenizer, read_tokenizer_facts
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import Bounds, PositiveInt
from maskstream.shards.members.text import TOKEN_TYPES

from .batch import TextBatch
from .packing import Packing, pack_one_a_row, packed
from .rows import CLASSES, TOKENS, WORDS, TextPlan, TextRowMaker
from .token_scores import TokenScores

Layout = Literal["pack", "row"]
CUES = frozenset({"words", "classes", "tokens"})
"""Mask inputs available for texts, plus `scores` if the loader has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSettings:
    """Settings of masked texts.

    Attributes:
        length: Tokens per row, including special tokens and padding.
        packing: "pack" fills each row with documents one after the other (see
            `pipelines/modalities.text.packing.py`); "row" shows one document per row.
        windows: Whether a row shows a random window of a longer document when shuffled; False always shows its
            beginning. For packing="row".
        mask: Mask of texts of `maskstream.pipelines.masks`; by default none. The ids of a `masks.Replace`
            default to those of the tokenizer.
        scores: Scores of the tokens of samples, for a mask that follows them, such as `masks.TopScores`; only
            for the beginnings of documents.
        views: Number of views per sample, which differ in their masks.
        fields: Other values of a sample to return in `batch.fields` (see `maskstream.pipelines.modalities.fields`);
            only with packing="row".
    """

    length: Annotated[int, Bounds(min=4)] = 128
    packing: Layout = "pack"
    windows: bool = True
    mask: Mask | None = None
    scores: TokenScores | None = None
    views: PositiveInt = 1
    fields: Fields = ()


@dataclass(frozen=True, kw_only=True)
class TextOptions(Options, TextSettings):
    """The options of `text_loader`."""


@takes_fields(TextOptions)
def text_loader(location: Splits, options: TextOptions) -> Loader[TextBatch]:
    """Open the loader of masked texts: batch_size * views rows per batch and rank.

    Args:
        location: Location of a split, such as `data/shards/gcide/train`, or (location, weight) pairs of
            several, which are mixed as `mix` does.
        options: The fields of `TextData` and the options of all loaders.

    Raises:
        TypeError: A parameter is unknown.
        ValueError: A value is not allowed.
        ShardError: The location is not a finished split of texts.
    """
    return TextData.open(location, options)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData(TextSettings, SplitConfig[TextPlan, TextBatch]):
    """Data config of masked texts."""

    modality: ClassVar[str] = "text"
    alike: ClassVar[tuple[str, ...]] = ("length",)

    def validate(self) -> None:
        if self.fields and self.packing == "pack":
            raise ValueError(
                "a packed row has several samples, so it cannot have fields; use packing='row', or leave fields out"
            )
        if self.scores is not None and (self.packing == "pack" or self.windows):
            raise ValueError("scores cover only the beginnings of samples; use packing='row' and windows=False")
        cues = CUES if self.scores is None else CUES | {"scores"}
        check_cues(self.mask, "texts", cues)
        if self.mask is not None and not self.mask.needs & {"words", "scores"}:
            raise ValueError(f"{self.mask} does not read words, so it would hide padding; use Tokens or WholeWords")

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """Token grid of "text", with the axis (token,)."""
        return {"text": TokenGrid(axes=("token",), shape=(self.length,), patch=(1,))}

    def resolved(self, split: Split) -> Self:
        """Fill in all defaults that depend on the split: the ids of `masks.Replace`.

        Raises:
            ValueError: The mask needs an input that the split lacks, or has ids of another tokenizer.
        """
        if self.mask is None:
            return self
        manifest = split.manifest
        if "classes" in self.mask.needs and CLASSES not in manifest.components:
            raise ValueError(
                f"{self.mask} needs classes, but {manifest.location} has no {CLASSES}; write it with --set classes=..."
            )
        return replace(self, mask=with_ids(self.mask, read_tokenizer_facts(manifest.location, manifest.info)))

    def rows(self, split: Split) -> TextRowMaker:
        """Create the row maker of a split.

        Raises:
            ShardError: The tokenizer is missing or has changed.
        """
        if self.packing == "pack" and split.weights is not None:
            raise ValueError(
                "a packed row has several samples, so it cannot have a weight; use packing='row', or leave weights out"
            )
        manifest = split.manifest
        facts = read_tokenizer_facts(manifest.location, manifest.info)
        read_tokenizer(manifest.store, manifest.info)
        return TextRowMaker(
            tokenizer=facts,
            packing=self._pack_documents(manifest, facts),
            components=tuple(name for name in (TOKENS, WORDS, CLASSES) if name in manifest.components),
            grid=self.grids["text"],
            mask=self.mask,
            windows=split.shuffle and self.windows,
            shares=self.packing == "pack",
            scores=self.scores,
        )

    def _pack_documents(self, manifest: Manifest, facts: TokenizerFacts) -> Packing:
        """Assign documents to rows."""
        tokens = manifest.component(TOKENS)
        if self.packing == "row":
            return pack_one_a_row(tokens.facts["n_tokens"].astype("int64"), manifest.shard_samples)
        extra = (facts.begin is not None) + (facts.end is not None)
        return packed(read_stored_lengths(tokens), manifest.shard_samples, self.length, extra)


def read_stored_lengths(tokens: Component) -> Int64s:
    """Return the number of tokens of each sample, int64 (N,); 0 without tokens, except for an erased sample.

    A number that contradicts the size of the member becomes 1, so that the sample has a row and is found unusable.
    """
    given, words = tokens.facts["n_tokens"].astype(np.int64), tokens.words["dtype"]
    sizes = np.array([*(np.dtype(name).itemsize if name in TOKEN_TYPES else 0 for name in words.names), 0])
    within = np.clip(given, 0, tokens.size)
    fits = tokens.facts["data_offset"].astype(np.int64) + within * sizes[words.code] == tokens.size
    lengths = np.where(fits & (within == given) & (given > 0), given, 1)
    return np.where(tokens.present | (tokens.size > 0), lengths, 0)


def with_ids(mask: Mask, facts: TokenizerFacts) -> Mask:
    """Fill in the tokenizer's ids in each `masks.Replace` without ids, at any depth.

    Raises:
        ValueError: Ids are not the tokenizer's.
    """
    changed = {f.name: with_ids(part, facts) for f in fields(mask) if isinstance(part := getattr(mask, f.name), Mask)}
    mask = replace(mask, **changed) if changed else mask
    if not isinstance(mask, Replace):
        return mask
    if facts.mask is None:
        raise ValueError(f"{mask} replaces tokens with [MASK], which this split's tokenizer does not have")
    wanted = {"mask_id": facts.mask, "vocabulary": facts.vocabulary}
    for name, value in wanted.items():
        if getattr(mask, name) not in (OF_THE_SPLIT, value):
            raise ValueError(
                f"{mask} has {name}={getattr(mask, name)}, but the tokenizer of this split has {value}; leave it out"
            )
    return replace(mask, mask_id=facts.mask, vocabulary=facts.vocabulary)
