"""A page of what a trained model generates, beside real samples."""

from __future__ import annotations

from pathlib import Path

from ..modality import Modality
from ..train.core.export import load_model
from ..train.core.recipe import check_modality
from ..train.core.run_folder import run_recipe, run_weights
from ..train.core.threads import CPU, compute_threads
from .figures.work import Drawn
from .page import page, write_page


def write_generated(modality: Modality, run: Path, data: str, out: Path | None, drawn: Drawn) -> Path:
    """Writes the page of the run in the folder `run`, beside samples of the split at `data`; returns its path.

    out: run/generated.html by default. ValueError for a run whose kind of model generates nothing.
    """
    recipe = run_recipe(run, "give the folder that `maskstream train` wrote")
    check_modality(recipe, data)
    make = modality.generates.get(type(recipe.model))
    if make is None:
        legal = ", ".join(sorted(one.__name__ for one in modality.generates)) or "none"
        raise ValueError(
            f"a {type(recipe.model).__name__} generates nothing; those of {modality.name} that do: {legal}"
        )
    with compute_threads(CPU):
        section = make(recipe.data, load_model(run_weights(run)), data, drawn)
    text = page(
        kind="generated samples",
        title=f"{run.resolve().name}: {recipe.name}",
        lede="What a trained model generates, beside real samples.",
        facts={"recipe": recipe.name, "seed": str(drawn.seed), "real samples": data},
        sections=(section,),
    )
    return write_page(text, run / "generated.html" if out is None else out)
