"""Texts that a trained model writes."""

from __future__ import annotations

from pathlib import Path

import torch

from ..shards.format.manifest import Manifest
from ..shards.format.tokenizer import read_tokenizer, tokenizer_facts
from ..train.core.export import load_model
from ..train.nn.token_model import TokenModel
from ..train.papers.bert.generate import Order, generate

BLANK = "[MASK]"


def generated(
    run: str | Path,
    data: str | Path,
    text: str,
    *,
    blanks: int,
    count: int,
    order: Order,
    temperature: float,
    seed: int,
) -> list[str]:
    """`count` texts of the model of a run: `text`, with each [MASK] in it and `blanks` more behind it filled in.

    data: a split with the run's tokenizer. ValueError for a model that is none of text, a tokenizer that has no [MASK],
    or a text that is longer than the model reads.
    """
    from tokenizers import Tokenizer

    model = load_model(Path(run) / "model.safetensors")
    if not isinstance(model, TokenModel):
        raise ValueError(f"{run} holds a {type(model).__name__}, which writes no text; give a run of a text model")
    manifest = Manifest.load(data)
    facts = tokenizer_facts(manifest.location, manifest.info)
    if facts.mask is None:
        raise ValueError(f"the tokenizer of {data} has no [MASK]; give the split that the run was trained on")
    tokenizer = Tokenizer.from_str(read_tokenizer(manifest.store, manifest.info).decode())
    given: list[int] = []
    for number, part in enumerate(text.split(BLANK)):
        given += [facts.mask] * (number > 0) + tokenizer.encode(part, add_special_tokens=False).ids
    ends = [[] if one is None else [one] for one in (facts.begin, facts.end)]
    ids = [*ends[0], *given, *[facts.mask] * blanks, *ends[1]]
    special = [one for one in (facts.pad, facts.unknown, facts.begin, facts.end) if one is not None]
    unknown = range(facts.vocabulary, model.config.vocabulary)
    made = generate(
        model,
        torch.tensor([ids]).repeat(count, 1),
        facts.mask,
        order=order,
        temperature=temperature,
        never=[*special, *unknown],
        seed=seed,
    )
    return [str(tokenizer.decode(one, skip_special_tokens=True)) for one in made.tolist()]
