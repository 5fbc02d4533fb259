"""What trained models generate: texts, and pages of pictures and clips beside real ones."""

from pathlib import Path
from typing import Any

import torch

from maskstream.modality import Modality
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.train.core.model import ModelConfig
from maskstream.train.core.process import CPU, compute_threads
from maskstream.train.core.recipe import check_modality
from maskstream.train.core.run_folder import run_recipe, run_weights
from maskstream.train.core.weights import load_model
from maskstream.train.evaluate.evaluation import Drawn
from maskstream.train.evaluate.features import match_labels_of_run
from maskstream.train.nn.token_model import TokenModel
from maskstream.train.papers import tables
from maskstream.train.papers.bert.evaluate import Order, generate
from maskstream.train.papers.mdlm.evaluate import generate as generate_by_time

from .figures.card import label_names
from .page import page, write_page
from .report.drawn import make_sections

BLANK = "[MASK]"
GENERATES: dict[type[ModelConfig[Any]], Drawn] = {
    kind: make for table in tables("evaluate", "GENERATES") for kind, make in table.items()
}
"""What draws examples of the models that generate, by their configs."""


def generated_texts(
    run: str | Path,
    data: Manifest,
    text: str,
    *,
    blanks: int,
    count: int,
    order: Order,
    temperature: float,
    seed: int,
    steps: int | None = None,
) -> list[str]:
    """`count` texts of the model of a run: `text`, with each [MASK] in it and `blanks` more behind it filled in.

    data: a split with the run's tokenizer. steps: those of the ancestral sampler of a masked diffusion, which fills in
    several blanks at once; None fills in one after the other, in `order`. ValueError for a model that is none of text,
    a tokenizer that has no [MASK], or a text that is longer than the model reads.
    """
    from tokenizers import Tokenizer

    model = load_model(Path(run) / "model.safetensors")
    if not isinstance(model, TokenModel):
        raise ValueError(f"{run} holds a {type(model).__name__}, which writes no text; give a run of a text model")
    facts = read_tokenizer_facts(data.location, data.info)
    if facts.mask is None:
        raise ValueError(f"the tokenizer of {data} has no [MASK]; give the split that the run was trained on")
    tokenizer = Tokenizer.from_str(read_tokenizer(data.store, data.info).decode())
    given: list[int] = []
    for number, part in enumerate(text.split(BLANK)):
        given += [facts.mask] * (number > 0) + tokenizer.encode(part, add_special_tokens=False).ids
    ends = [[] if one is None else [one] for one in (facts.begin, facts.end)]
    ids = [*ends[0], *given, *[facts.mask] * blanks, *ends[1]]
    special = [one for one in (facts.pad, facts.unknown, facts.begin, facts.end) if one is not None]
    unknown = range(facts.vocabulary, model.config.vocabulary)
    blank, never = torch.tensor([ids]).repeat(count, 1), [*special, *unknown]
    if steps is None:
        made = generate(model, blank, facts.mask, order=order, temperature=temperature, never=never, seed=seed)
    else:
        made = generate_by_time(model, blank, facts.mask, steps=steps, temperature=temperature, never=never, seed=seed)
    return [str(tokenizer.decode(one, skip_special_tokens=True)) for one in made.tolist()]


def write_generated(
    modality: Modality,
    run: Path,
    data: Manifest,
    out: Path | None,
    *,
    count: int,
    rounds: int,
    temperature: float | None,
    seed: int,
) -> Path:
    """Writes the page of the run in the folder `run`, beside samples of a split; returns its path.

    out: run/generated.html by default. ValueError for a run whose kind of model generates nothing.
    """
    recipe = run_recipe(run, "give the folder that `maskstream train` wrote")
    check_modality(recipe, data)
    make = GENERATES.get(type(recipe.model))
    if make is None:
        legal = ", ".join(sorted(one.__name__ for one in GENERATES))
        raise ValueError(f"a {type(recipe.model).__name__} generates nothing; those that do: {legal}")
    split = match_labels_of_run(data, run)
    with compute_threads(CPU):
        example = make(
            load_model(run_weights(run)),
            recipe.data,
            split,
            count=count,
            rounds=rounds,
            temperature=temperature,
            seed=seed,
        )
    text = page(
        kind="generated samples",
        title=f"{run.resolve().name}: {recipe.name}",
        lede="What a trained model generates, beside real samples.",
        facts={"recipe": recipe.name, "seed": str(seed), "real samples": str(data)},
        sections=make_sections([example], modality.figures(recipe.data, split), label_names(split.info)),
    )
    return write_page(text, run / "generated.html" if out is None else out)
