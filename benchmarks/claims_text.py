"""Claims of the papers of text in direction: small models, three seeds, whatever comes out.

    python benchmarks/claims_text.py masks     --data data/shards/foldoc --out runs/claims
    python benchmarks/claims_text.py retrieval --data data/shards/gcide  --out runs/claims

--data is the folder with the splits train and val; `masks` needs parts of speech in them. Each trains every variant
with each seed by the loader and the loop of the product, measures all on the same held-out documents with the same
masks, writes OUT/NAME.json after each run and prints a table for docs/claims.md. Called again, it goes on with the runs
that are not there yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import facts

from maskstream.pipelines.masks import ByClass, Mask, RatioDecay, Tokens, WholeWords
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import tokenizer_facts
from maskstream.train import Recipe, load_model
from maskstream.train.core.run import train_recipe
from maskstream.train.evaluate.held_out import batches
from maskstream.train.evaluate.masked_tokens import masked_token_losses
from maskstream.train.evaluate.ngrams import NGrams
from maskstream.train.evaluate.retrieval import cosine_scores, retrieval
from maskstream.train.evaluate.sentences import bm25_scores, halves, sentence_vectors
from maskstream.train.models.retro_model import RetroModelConfig
from maskstream.train.models.token_model import TokenModel, TokenModelConfig
from maskstream.train.recipes.text import CLASSES, SMALL, bert_tiny, replaced, retromae_tiny

SEEDS = (0, 1, 2)
CLS, SEP = 2, 3
RETRIEVED = 1000
"""Documents among which the second half of each is looked for."""
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim: the recipes that are compared, and the figures of a trained model on held-out documents.

    baselines: figures that need no training.
    """

    says: str
    variants: Mapping[str, Recipe[Any]]
    measure: Callable[[TokenModel], Figures]
    baselines: Mapping[str, Figures]


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


def masked_losses(data: Path, masks: Mapping[str, Mask]) -> tuple[Callable[[TokenModel], Figures], dict[str, Figures]]:
    """What measures the loss under each of the masks, and the losses of counts."""
    plain = TextData(length=128, packing="pack", mask=replaced(Tokens()))
    vocabulary = model_for(data).vocabulary
    counts = NGrams.of(batches(plain, data / "train", size=64, samples=1 << 14), vocabulary)
    measured = {
        name: list(batches(replace(plain, mask=replaced(mask)), data / "val", size=32, samples=512))
        for name, mask in masks.items()
    }

    def measure(model: TokenModel) -> Figures:
        return {name: masked_token_losses(model, some, counts).model for name, some in measured.items()}

    some = TokenModelConfig(vocabulary=vocabulary, width=8, depth=1, heads=1).build(plain.grids)
    if not isinstance(some, TokenModel):
        raise TypeError("the config builds a TokenModel")
    found = {name: masked_token_losses(some, one, counts) for name, one in measured.items()}
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
    return Claim(
        says=(
            "a ratio that falls from 0.32 to 0.02, whole words, and words of classes with a high loss each teach more "
            "than tokens at a fixed ratio of 0.15"
        ),
        variants={
            "tokens, 0.15": bert_with(Tokens(ratio=0.15, each=True), steps, model),
            "tokens, cosine decay": bert_with(Tokens(ratio=RatioDecay(), each=True), steps, model),
            "whole words, 0.15": bert_with(WholeWords(ratio=0.15), steps, model),
            "whole words by class, 0.15": bert_with(ByClass(ratio=0.15), steps, classed),
        },
        measure=measure,
        baselines=baselines,
    )


def retrieved(data: Path, steps: int) -> Claim:
    """RetroMAE against the same encoder without the decoder: the second half of an entry by its first half."""
    plain = TextData(length=128, packing="row", mask=None)
    pairs = []
    for batch in batches(plain, data / "val", size=50, samples=1 << 14, shuffle=True):
        unpadded = batch.unpadded
        for ids in np.split(unpadded.tokens.long().numpy(), unpadded.cu_seqlens[1:-1].tolist()):
            if len(ids) >= 42 and len(pairs) < RETRIEVED:
                pairs.append(halves(ids[1:-1], CLS, SEP, 64))
    first, second = zip(*pairs, strict=True)
    same = torch.eye(len(pairs), dtype=torch.bool)

    def figures(scores: torch.Tensor) -> Figures:
        found = retrieval(scores, same, ks=(1, 10))
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
        vocabulary=model.vocabulary, width=model.width, depth=model.depth, heads=model.heads, norm="pre", eps=model.eps
    )
    schedule = replace(retro.schedule, base_lr=48e-3, steps=steps)
    retro = replace(retro, batch_size=16, model=sizes, schedule=schedule)
    data_of_control = TextData(length=64, packing="row", mask=replaced(WholeWords(ratio=0.3)))
    control = replace(retro, data=data_of_control, model=model)
    untrained = [measure(control.build(seed=seed)) for seed in SEEDS]
    return Claim(
        says="RetroMAE's sentence vector retrieves better than that of a masked language model",
        variants={"masked language model": control, "RetroMAE": retro},
        measure=measure,
        baselines={
            "BM25": figures(bm25_scores(first, second, model.vocabulary)),
            "random weights": {name: statistics.mean(one[name] for one in untrained) for name in untrained[0]},
        },
    )


CLAIMS: dict[str, Callable[[Path, int], Claim]] = {"masks": masks, "retrieval": retrieved}


def trained(recipe: Recipe[Any], data: Path, seed: int) -> tuple[TokenModel, float]:
    """A model of the recipe, and the CPU seconds of its training."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        train_recipe(recipe, data / "train", out, seed=seed, device="cpu", save_every=1 << 30, progress=False)
        model = load_model(Path(out) / "model.safetensors")
    if not isinstance(model, TokenModel):
        raise TypeError(f"the recipe {recipe.name} trains no model of text")
    return model, round(time.process_time() - start, 1)


def table(found: Mapping[str, Sequence[Figures]], baselines: Mapping[str, Figures]) -> str:
    """The means over the seeds, and the range behind them, as Markdown."""
    names = list(next(iter(found.values()))[0])
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for variant, runs in found.items():
        cells = []
        for name in names:
            values = [run[name] for run in runs]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    for baseline, figures in baselines.items():
        lines.append(f"| {baseline} | " + " | ".join(f"{figures[n]:.3f}" if n in figures else "" for n in names) + " |")
    return "\n".join(lines)


def main() -> None:
    """Trains the variants of one claim, seed by seed, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    claim = CLAIMS[options.claim](options.data, options.steps)
    file = options.out / f"{options.claim}.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.exists() else []
    done = {(run["variant"], run["seed"]) for run in runs if run["steps"] == options.steps}
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for name, recipe in claim.variants.items():
            if (name, seed) in done:
                continue
            model, spent = trained(recipe, options.data, seed)
            figures = claim.measure(model)
            runs.append(
                {"variant": name, "seed": seed, "steps": options.steps, "cpu_seconds": spent, "figures": figures}
            )
            print(f"{name}, seed {seed}: {figures}, {spent:.0f} CPU s", flush=True)
            about = {"claim": claim.says, "data": options.data.name, "machine": facts(("torch",))}
            file.write_text(json.dumps({**about, "baselines": claim.baselines, "runs": runs}, indent=2) + "\n")
    found = {
        name: [run["figures"] for run in runs if run["variant"] == name and run["steps"] == options.steps]
        for name in claim.variants
    }
    print(table(found, claim.baselines))


if __name__ == "__main__":
    main()
