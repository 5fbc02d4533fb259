"""Claims of the papers of text in direction: small models, three seeds, whatever comes out.

    python benchmarks/claims_text.py masks     --data data/shards/sample-text-classes --out runs/claims
    python benchmarks/claims_text.py retrieval --data data/shards/sample-text --out runs/claims

--data is the folder with the splits train and val; `masks` needs parts of speech in them. All variants are measured on
the same held-out documents with the same masks; OUT/NAME.json has the runs, and the table is printed (see claims.py).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from claims import SEEDS, Claim, Figures, Variant, compared

from maskstream.pipelines.masks import ByClass, Mask, RatioDecay, Tokens, WholeWords
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import tokenizer_facts
from maskstream.train import Recipe
from maskstream.train.evaluate.evaluation import read_batches
from maskstream.train.evaluate.hidden_ids import NGrams
from maskstream.train.evaluate.retrieval import (
    bm25_scores,
    cosine_scores,
    measure_ranking,
    sentence_vectors,
    split_in_halves,
)
from maskstream.train.nn.token_layers import hidden_tokens
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig
from maskstream.train.papers.bert.evaluate import measure_tokens
from maskstream.train.papers.bert.recipe import CLASSES, SMALL, bert_tiny, replaced
from maskstream.train.papers.retromae.model import RetroModelConfig
from maskstream.train.papers.retromae.recipe import retromae_tiny

CLS, SEP = 2, 3
RETRIEVED = 1000
"""Documents among which the second half of each is looked for."""


def model_for(data: Path) -> TokenModelConfig:
    """The model of all variants, for the ids of a split; it trains in half a minute."""
    manifest = Manifest.load(data / "train")
    vocabulary = tokenizer_facts(manifest.location, manifest.info).vocabulary
    return replace(SMALL, vocabulary=vocabulary, width=64, depth=2, heads=2)


def bert_with(mask: Mask, steps: int, model: TokenModelConfig) -> Recipe[Any]:
    """The recipe `bert-tiny` with another mask and 8 rows a step."""
    tiny = replace(bert_tiny(), batch_size=8)
    data = TextData(length=128, packing="pack", mask=replaced(mask))
    return replace(tiny, data=data, model=model, schedule=replace(tiny.schedule, base_lr=96e-3, steps=steps))


@torch.inference_mode()
def mean_loss(model: TokenModel, measured: Iterable[TextBatch]) -> float:
    """The mean cross-entropy of the hidden tokens of batches, in nats."""
    model.eval()
    found = []
    for batch in measured:
        hidden = hidden_tokens(batch)
        found.append(F.cross_entropy(model.logits(model.encode(batch, hidden.place)), hidden.label, reduction="none"))
    return float(torch.cat(found).mean())


def masked_losses(data: Path, masks: Mapping[str, Mask]) -> tuple[Callable[[TokenModel], Figures], dict[str, Figures]]:
    """What measures the loss under each of the masks, and the losses of counts."""
    plain = TextData(length=128, packing="pack", mask=replaced(Tokens()))
    vocabulary = model_for(data).vocabulary
    counts = NGrams.of(read_batches(plain, Manifest.load(data / "train"), size=64, samples=1 << 14), vocabulary)
    measured = {
        name: list(read_batches(replace(plain, mask=replaced(mask)), Manifest.load(data / "val"), size=32, samples=512))
        for name, mask in masks.items()
    }

    def measure(model: TokenModel) -> Figures:
        return {name: mean_loss(model, some) for name, some in measured.items()}

    some = TokenModelConfig(vocabulary=vocabulary, width=8, depth=1, heads=1).build(plain.grids)
    if not isinstance(some, TokenModel):
        raise TypeError("the config builds a TokenModel")
    found = {name: measure_tokens(some, one, counts) for name, one in measured.items()}
    return measure, {
        "counts of ids": {name: one.alone for name, one in found.items()},
        "counts of pairs": {name: one.beside for name, one in found.items()},
    }


def masks(data: Path, steps: int) -> Claim:
    """Learning Better Masking's schedule and classes, and BERT's whole words, against single tokens."""
    tasks = {"loss of tokens": Tokens(ratio=0.15), "loss of whole words": WholeWords(ratio=0.15)}
    measure, baselines = masked_losses(data, tasks)
    model = model_for(data)
    classed = replace(model, classes=CLASSES, momentum=0.99)
    masked = {
        "tokens, 0.15": bert_with(Tokens(ratio=0.15, each=True), steps, model),
        "tokens, cosine decay": bert_with(Tokens(ratio=RatioDecay(), each=True), steps, model),
        "whole words, 0.15": bert_with(WholeWords(ratio=0.15), steps, model),
        "whole words by class, 0.15": bert_with(ByClass(ratio=0.15), steps, classed),
    }
    return Claim(
        says=(
            "a ratio that falls from 0.32 to 0.02, whole words, and words of classes with a high loss each teach more "
            "than tokens at a fixed ratio of 0.15"
        ),
        variants={name: Variant(recipe=recipe, train=data / "train") for name, recipe in masked.items()},
        measure=measure,
        baselines=baselines,
    )


def retrieved(data: Path, steps: int) -> Claim:
    """RetroMAE against the same encoder without the decoder: the second half of an entry by its first half."""
    plain = TextData(length=128, packing="row", mask=None)
    pairs = []
    for batch in read_batches(plain, Manifest.load(data / "val"), size=50, samples=1 << 14, shuffle=True):
        unpadded = batch.unpadded
        for ids in np.split(unpadded.tokens.long().numpy(), unpadded.cu_seqlens[1:-1].tolist()):
            if len(ids) >= 42 and len(pairs) < RETRIEVED:
                pairs.append(split_in_halves(ids[1:-1], CLS, SEP, 64))
    first, second = zip(*pairs, strict=True)
    same = torch.eye(len(pairs), dtype=torch.bool)

    def figures(scores: torch.Tensor) -> Figures:
        found = measure_ranking(scores, same, ks=(1, 10))
        return {"MRR": found.mrr, "recall at 1": found.recall[1], "recall at 10": found.recall[10]}

    def measure(model: TokenModel) -> Figures:
        made: Figures = {}
        for pooling in ("first", "mean"):
            vectors = [sentence_vectors(model, half, pooling=pooling) for half in (first, second)]
            made |= {f"{name}, {pooling}": value for name, value in figures(cosine_scores(*vectors)).items()}
        return made

    retro = retromae_tiny()
    model = model_for(data)
    sizes = RetroModelConfig(
        vocabulary=model.vocabulary,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        norm=model.norm,
        positions=model.positions,
        eps=model.eps,
    )
    schedule = replace(retro.schedule, base_lr=48e-3, steps=steps)
    retro = replace(retro, batch_size=16, model=sizes, schedule=schedule)
    data_of_control = TextData(length=64, packing="row", mask=replaced(WholeWords(ratio=0.3)))
    control = replace(retro, data=data_of_control, model=model)
    untrained = [measure(control.build(seed=seed)) for seed in SEEDS]
    return Claim(
        says="RetroMAE's sentence vector retrieves better than that of a masked language model",
        variants={
            name: Variant(recipe=recipe, train=data / "train")
            for name, recipe in {"masked language model": control, "RetroMAE": retro}.items()
        },
        measure=measure,
        baselines={
            "BM25": figures(bm25_scores(first, second, model.vocabulary)),
            "random weights": {name: statistics.mean(one[name] for one in untrained) for name in untrained[0]},
        },
    )


CLAIMS: dict[str, Callable[[Path, int], Claim]] = {"masks": masks, "retrieval": retrieved}


def main() -> None:
    """Trains the variants of one claim, seed by seed, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    compared(CLAIMS[options.claim](options.data, options.steps), options.claim, options.out, options.steps)


if __name__ == "__main__":
    main()
