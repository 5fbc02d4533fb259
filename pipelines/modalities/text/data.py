"""The data config of texts, and the source that it makes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, Unpack, get_args

import numpy as np
import numpy.typing as npt

from ....shards.format.component import Component
from ....shards.format.manifest import Manifest
from ....shards.format.tokenizer import TokenizerFacts, read_tokenizer, tokenizer_facts
from ....shards.members.tokens import TOKEN_TYPES
from ...masks import Mask, Replace, TokenGrid
from ...masks.text.replace import OF_THE_SPLIT
from ...stream.loader import Loader
from ...stream.sampler import Unchanged
from ...stream.source import Source
from ..data import DataConfig, check_settings
from ..fields import Fields, FieldsDraft, FieldsRequest, with_fields
from ..split import Options, Split, split_of
from .batch import TextBatch
from .packing import Packing, one_a_row, packed
from .sample import CLASSES, TOKENS, WORDS, TextDraft, TextRequest, TextSampler
from .token_scores import TokenScores

TextSource = Source[FieldsRequest[TextRequest], FieldsDraft[TextDraft], TextBatch, TextBatch]
Layout = Literal["pack", "row"]
CUES = frozenset({"words", "classes", "tokens"})
"""The cues that texts have for masks; with `scores`, they have those too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData(DataConfig[TextBatch]):
    """The data config of masked texts.

    length: the tokens of a row, special ones and padding included. packing: "pack" puts documents one behind the other
    until a row is full, as packing.py says; "row" shows one document in each row, of a longer one a random window when
    shuffled, else its beginning; windows=False always shows its beginning. mask: a mask of texts of
    `maskstream.pipelines.masks`, or None. The ids of a `masks.Replace` may be left out: they are then the tokenizer's.
    scores: of the tokens of samples, for a mask that follows them, such as `masks.TopScores`; only of beginnings.
    views: the number of views per sample, which differ in their mask. fields: other values of a sample for
    `batch.fields` (see fields.py); only with packing="row".
    """

    modality: ClassVar[str] = "text"

    length: int = 128
    packing: Layout = "pack"
    windows: bool = True
    mask: Mask | None = None
    scores: TokenScores | None = None
    views: int = 1
    fields: Fields = ()

    def __post_init__(self) -> None:
        check_settings(self, self.views)
        if self.packing not in get_args(Layout):
            raise ValueError(f"packing is one of {', '.join(get_args(Layout))}, got {self.packing!r}")
        if self.length < 4:
            raise ValueError(f"length={self.length}: a row has 4 tokens or more, two of which are special")
        if self.fields and self.packing == "pack":
            raise ValueError("a packed row has several samples, so there are no fields; use packing='row' or no fields")
        if self.scores is not None and (self.packing == "pack" or self.windows):
            raise ValueError("scores are of the beginnings of samples; use packing='row' and windows=False with them")
        cues = CUES if self.scores is None else CUES | {"scores"}
        if self.mask is not None and (other := self.mask.needs - cues):
            raise ValueError(f"{self.mask} needs {', '.join(sorted(other))}; texts have {', '.join(sorted(cues))}")
        if self.mask is not None and not self.mask.needs & {"words", "scores"}:
            raise ValueError(f"{self.mask} does not read words, so it would hide padding; use Tokens or WholeWords")

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The token grid of "text", with the axis (token,)."""
        return {"text": TokenGrid(axes=("token",), shape=(self.length,), patch=(1,))}

    def resolved(self, split: Split) -> Self:
        """The config with all defaults that depend on the split filled in: the ids of `masks.Replace`.

        ValueError if the mask needs what the split does not have, or has ids of another tokenizer.
        """
        if self.mask is None:
            return self
        manifest = split.manifest
        if "classes" in self.mask.needs and CLASSES not in manifest.components:
            raise ValueError(
                f"{self.mask} needs classes, and {manifest.location} has no {CLASSES}; write it with --set classes=..."
            )
        return replace(self, mask=with_ids(self.mask, tokenizer_facts(manifest.location, manifest.info)))

    def sampler(self, split: Split) -> TextSampler:
        """The sampler of a split. ShardError if its tokenizer is missing or another one."""
        own, manifest = self.resolved(split), split.manifest
        facts = tokenizer_facts(manifest.location, manifest.info)
        read_tokenizer(manifest.store, facts)
        return TextSampler(
            manifest=manifest,
            tokenizer=facts,
            packing=own.rows(manifest, facts),
            components=tuple(name for name in (TOKENS, WORDS, CLASSES) if name in manifest.components),
            grid=own.grids["text"],
            pattern=own.mask,
            scores=own.scores,
            seed=split.seed,
            views=own.views,
            windows=split.shuffle and own.windows,
            shares=own.packing == "pack",
        )

    def rows(self, manifest: Manifest, facts: TokenizerFacts) -> Packing:
        """The rows of a split."""
        tokens = manifest.component(TOKENS)
        if self.packing == "row":
            return one_a_row(tokens.facts["n_tokens"].astype("int64"), manifest.shard_samples)
        lengths = stored_lengths(tokens)
        extra = (facts.begin is not None) + (facts.end is not None)
        return packed(lengths, manifest.shard_samples, self.length, extra)

    def source(self, split: Split) -> TextSource:
        """The source of a split, for a loader or a mixture."""
        if self.packing == "pack" and split.weights is not None:
            raise ValueError("a packed row has several samples, so it has no weight; use packing='row' or no weights")
        own, sampler = self.resolved(split), self.sampler(split)
        texts = Source(
            sampler=sampler,
            finish=Unchanged(),
            samples=replace(split.samples, shard_sizes=tuple(sampler.packing.shard_rows.tolist())),
            identity={"data": own.to_dict(identity=True), **split.identity},
            form={
                "length": own.length,
                "views": own.views,
                "mask": own.mask,
                "tokenizer": sampler.tokenizer.sha256,
                "classes": CLASSES in sampler.components,
            },
        )
        return with_fields(texts, split.manifest, own.fields)

    def loader(self, location: str | Path, **options: Unpack[Options]) -> Loader[TextBatch]:
        """The loader of a split."""
        split, loading = split_of(location, self.modality, options, self.loader)
        return Loader(self.source(split), **loading)


def stored_lengths(tokens: Component) -> npt.NDArray[np.int64]:
    """The number of tokens of each sample, int64 (N,), 0 for one without tokens, but not for one that was erased.

    A number that contradicts the size of the member becomes 1, so that the sample is in a row, and is found unusable.
    """
    given, words = tokens.facts["n_tokens"].astype(np.int64), tokens.words["dtype"]
    sizes = np.array([*(np.dtype(name).itemsize if name in TOKEN_TYPES else 0 for name in words.names), 0])
    within = np.clip(given, 0, tokens.size)
    fits = tokens.facts["data_offset"].astype(np.int64) + within * sizes[words.code] == tokens.size
    lengths = np.where(fits & (within == given) & (given > 0), given, 1)
    return np.where(tokens.present | (tokens.size > 0), lengths, 0)


def with_ids(mask: Mask, facts: TokenizerFacts) -> Mask:
    """The mask with the tokenizer's ids in each `masks.Replace` without ids, wherever it stands.

    ValueError for ids that are not the tokenizer's.
    """
    changed = {f.name: with_ids(part, facts) for f in fields(mask) if isinstance(part := getattr(mask, f.name), Mask)}
    mask = replace(mask, **changed) if changed else mask
    if not isinstance(mask, Replace):
        return mask
    if facts.mask is None:
        raise ValueError(f"{mask} replaces tokens by [MASK], which the tokenizer of this split does not have")
    wanted = {"mask_id": facts.mask, "vocabulary": facts.vocabulary}
    for name, value in wanted.items():
        if getattr(mask, name) not in (OF_THE_SPLIT, value):
            raise ValueError(
                f"{mask} has {name}={getattr(mask, name)}, but the tokenizer of this split has {value}; leave it out"
            )
    return replace(mask, mask_id=facts.mask, vocabulary=facts.vocabulary)
