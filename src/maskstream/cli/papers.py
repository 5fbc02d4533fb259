"""`maskstream paper`: what one paper has and others have not; and the names under which these commands stood before."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag, RunFlag
from maskstream.train.core.options import Set
from maskstream.train.papers.kbvqa.options import KbvqaSettings
from maskstream.train.papers.roar.options import RoarSettings

from .flags import with_flags
from .terminal import Device, Json, say, tell

if TYPE_CHECKING:
    from maskstream.shards.format.manifest import Manifest
    from maskstream.train.papers.kbvqa.evaluate import KbvqaResult, Predictor, Question
    from maskstream.train.papers.roar.roar import RoarResult

Order = Literal["random", "left_to_right", "confident"]


Run = Annotated[Path, ModelFlag("Folder of a run, such as of pmlm-tiny, mdlm-tiny, mage-tiny or maskvit-tiny.")]
TextData = Annotated[str, DataFlag("Split with the tokenizer of the run.")]
Text = Annotated[str, ModelFlag("Initial text; [MASK] is a blank.")]
Blanks = Annotated[int, ModelFlag("Blanks after the text.", min=0)]
Rounds = Annotated[int, ModelFlag("Rounds of iterative decoding.", min=1)]
NextBlank = Annotated[Order, ModelFlag("Which blank is filled next.")]
Seed = Annotated[int, RunFlag("Random seed of all draws.")]
PageFile = Annotated[Path | None, OutputFlag("HTML file [default: RUN/generated.html].")]


def generate_texts(
    run: Run,
    *,
    data: TextData,
    text: Text = "",
    blanks: Blanks = 24,
    order: NextBlank = "random",
    count: Annotated[int, OutputFlag("Number of texts.", min=1)] = 3,
    temperature: Annotated[float, ModelFlag("Temperature; 0 takes the most probable.", min=0)] = 0.8,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill in the blanks of a text in any order, by a masked language model."""
    from maskstream.pages.generated import generated_texts
    from maskstream.shards.format.manifest import Manifest

    made = generated_texts(
        run, Manifest.load(data), text, blanks=blanks, count=count, order=order, temperature=temperature, seed=seed
    )
    tell({"texts": made}, dict.fromkeys(made), as_json)


def generate_diffused(
    run: Run,
    *,
    data: TextData,
    text: Text = "",
    blanks: Blanks = 24,
    steps: Annotated[int, ModelFlag("Steps from all hidden to none.", min=1)] = 64,
    count: Annotated[int, OutputFlag("Number of texts.", min=1)] = 3,
    temperature: Annotated[float, ModelFlag("Temperature; 0 takes the most probable.", min=0)] = 1.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill in the blanks of a text by the ancestral sampler of a masked diffusion model."""
    from maskstream.pages.generated import generated_texts
    from maskstream.shards.format.manifest import Manifest

    split = Manifest.load(data)
    made = generated_texts(
        run, split, text, blanks=blanks, count=count, order="random", temperature=temperature, seed=seed, steps=steps
    )
    tell({"texts": made}, dict.fromkeys(made), as_json)


def generate_pictures(
    run: Run,
    *,
    data: Annotated[str, DataFlag("Split of real samples.")],
    rounds: Rounds = 12,
    count: Annotated[int, OutputFlag("Number of samples.", min=1)] = 16,
    temperature: Annotated[
        float | None, ModelFlag("Temperature; 0 takes the most probable [default: the model's].", min=0)
    ] = None,
    seed: Seed = 0,
    out: PageFile = None,
    as_json: Json = False,
) -> None:
    """Write a page of pictures or clips that a model of ids generates, beside real ones."""
    from maskstream.modalities import modality_of
    from maskstream.pages.generated import write_generated
    from maskstream.shards.format.manifest import Manifest

    split = Manifest.load(data)
    page = write_generated(
        modality_of(split), run, split, out, count=count, rounds=rounds, temperature=temperature, seed=seed
    )
    tell({"page": str(page)}, [f"wrote {page}"], as_json)


def generate(
    run: Run,
    *,
    data: Annotated[str, DataFlag("Split with the tokenizer of the run, or with real samples.")],
    text: Text = "",
    blanks: Blanks = 24,
    order: NextBlank = "random",
    rounds: Rounds = 12,
    out: PageFile = None,
    count: Annotated[int | None, OutputFlag("Number of samples [default: 3 texts, 16 others].", min=1)] = None,
    temperature: Annotated[
        float | None,
        ModelFlag("Temperature; 0 takes the most probable [default: 0.8 for texts, else the model's].", min=0),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Generate with a masked model: the former name of `maskstream paper bert`, `mage` and `maskvit`."""
    from maskstream.modalities import modality_of
    from maskstream.pages.generated import generated_texts, write_generated
    from maskstream.shards.format.manifest import Manifest

    split = Manifest.load(data)
    modality = modality_of(split)
    if modality.name == "text":
        heat = 0.8 if temperature is None else temperature
        made = generated_texts(
            run, split, text, blanks=blanks, count=count or 3, order=order, temperature=heat, seed=seed
        )
        tell({"texts": made}, dict.fromkeys(made), as_json)
        return
    page = write_generated(
        modality, run, split, out, count=count or 16, rounds=rounds, temperature=temperature, seed=seed
    )
    tell({"page": str(page)}, [f"wrote {page}"], as_json)


def kbvqa(
    data: Annotated[str, DataFlag("Split whose questions are asked.")],
    *,
    known: Annotated[str, DataFlag("Split of examples and of known answers.")],
    predictor: Annotated[
        str, ModelFlag("frequent, the folder of a run of vqa-tiny, or package.module:name of a function.")
    ] = "frequent",
    command: Annotated[
        str | None, ModelFlag("Program that replies to JSON lines, with its arguments; no shell.")
    ] = None,
    timeout: Annotated[float, RunFlag("Seconds for each reply of the program.", min=0.1)] = 60.0,
    wordnet: Annotated[Path | None, DataFlag("Folder of WordNet (data.noun), whose glosses are retrieved.")] = None,
    settings: KbvqaSettings,
    samples: Annotated[int, DataFlag("Most questions.", min=1)] = 512,
    out: Annotated[Path, OutputFlag("Folder of the result.")] = Path("runs/kbvqa"),
    as_json: Json = False,
) -> None:
    """Ask a predictor questions about images that need knowledge, from three perspectives.

    See docs/papers/gpt-4v-on-knowledge-vqa.md.

    It writes kbvqa.json and a page of questions and replies, kbvqa.html, into the folder.
    """
    from maskstream.pages.kbvqa import write_kbvqa_page
    from maskstream.shards.format.manifest import Manifest
    from maskstream.train.papers.kbvqa.evaluate import kbvqa as asked
    from maskstream.train.papers.kbvqa.evaluate import read_questions
    from maskstream.train.papers.kbvqa.glosses import Glosses

    split = Manifest.load(data)
    questions = read_questions(split, samples, settings.seed)
    before = read_questions(Manifest.load(known), 1 << 30, settings.seed)
    if wordnet is not None:
        settings = replace(settings, glosses=Glosses.read(wordnet))
    replier = _make_predictor(predictor, command, timeout, before, split)
    result, replies = asked(questions, before, replier, settings, name=command or predictor, data=data)
    out.mkdir(parents=True, exist_ok=True)
    (out / "kbvqa.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    page = write_kbvqa_page(result, replies, out / "kbvqa.html")
    tell(result.to_dict(), [*tabulate_answers(result), f"wrote {page} and kbvqa.json beside it"], as_json)


def _make_predictor(name: str, command: str | None, timeout: float, known: list[Question], data: Manifest) -> Predictor:
    from maskstream.shards.named import imported
    from maskstream.train.papers.kbvqa.predictors import CommandPredictor, frequent, load_run, wrap_callable

    if command is not None:
        words = shlex.split(command)
        if not words:
            raise ValueError("--command is empty; give a program with its arguments")
        return CommandPredictor(command=tuple(words), timeout_s=timeout)
    if name == "frequent":
        return frequent(known)
    if Path(name, "run.json").exists():
        return load_run(Path(name), data)
    if ":" not in name:
        raise ValueError(f"{name!r} is no predictor; legal are frequent, the folder of a run, and package.module:name")
    return wrap_callable(imported(name, "predictor"))


def tabulate_answers(result: KbvqaResult) -> list[str]:
    """The lines of a table: a row for each perspective and kind of question."""
    lines = [f"{result.predictor} on {result.questions['all']:,} questions of {result.data}"]
    for perspective, kinds in result.scores.items():
        for kind, figures in kinds.items():
            own = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
            lines.append(f"{perspective:12} {kind:10} {own}; most frequent answer {result.frequent[kind]:.3f}")
    lines += [f"{ratio:.0%} of the picture hidden: exact {value:.3f}" for ratio, value in result.occluded.items()]
    return lines


def meshmask(
    runs: Annotated[Sequence[Path], ModelFlag("Folders of runs of a next-step model on meshes.")],
    *,
    data: Annotated[str, DataFlag("Split of simulations, preferably for validation.")],
    out: Annotated[Path | None, OutputFlag("HTML file to write [default: none].")] = None,
    count: Annotated[int | None, DataFlag("Number of trajectories [default: all].", min=1)] = None,
    steps: Annotated[int | None, DataFlag("Steps of each [default: length of the shortest].", min=1)] = None,
    component: Annotated[str | None, DataFlag("Mesh to read, if samples have several [default: the only one].")] = None,
    as_json: Json = False,
) -> None:
    """Roll out next-step models from the first step of trajectories, and compare their errors with persistence."""
    from maskstream.pages.report.rollout_report import compare_rollouts

    result = compare_rollouts(runs, data, out, count=count, steps=steps, component=component)
    table = result["errors"]
    width = max(map(len, table))
    columns = [column.replace("_", " ") for column in next(iter(table.values()))]
    lines = ["  ".join(["".ljust(width), *(f"{column:>8}" for column in columns)])]
    for name, own in table.items():
        values = (f"{value:>{max(len(column), 8)}.4f}" for column, value in zip(columns, own.values(), strict=True))
        lines.append("  ".join([name.ljust(width), *values]))
    tell(result, lines if out is None else [*lines, f"wrote {out}"], as_json)


def roar(
    run: Annotated[str, ModelFlag("Name of a recipe of a text classifier, or folder of a run.")],
    *,
    data: Annotated[str, DataFlag("Labelled split to train on.")],
    test: Annotated[str, DataFlag("Labelled split to test on.")],
    set_: Set = (),
    settings: RoarSettings,
    device: Device = "auto",
    out: Annotated[Path, OutputFlag("Folder of the result.")] = Path("runs/roar"),
    as_json: Json = False,
) -> None:
    """Measure how faithful measures of importance are: hide what they call important, and train again.

    See docs/papers/recursive-roar.md.

    It writes roar.json and a page of curves, roar.html, into the folder. The same command continues.
    """
    from maskstream.pages.roar import write_roar_page
    from maskstream.pipelines.stream.topology import usable_device
    from maskstream.shards.config import with_set
    from maskstream.train.core.run_folder import run_recipe
    from maskstream.train.papers.roar.roar import roar as compared
    from maskstream.train.recipes import named_recipe

    recipe = run_recipe(Path(run)) if Path(run, "run.json").exists() else named_recipe(run)
    said = (lambda line: None) if as_json else say
    result = compared(with_set(recipe, set_), data, test, out, settings, device=usable_device(device), said=said)
    page = write_roar_page(result, data, out / "roar.html")
    tell(result.to_dict(), [*tabulate_curves(result), f"wrote {page} and roar.json beside it"], as_json)


def tabulate_curves(result: RoarResult) -> list[str]:
    """The lines of a table: a row per measure with its RACU and the mean of its curve at each level."""
    width = max(map(len, result.measures))
    head = "".join(f"{level:>7}%" for level in result.levels)
    lines = [
        f"{result.recipe}: macro F1 on {result.test:,} texts by share of hidden tokens, mean over "
        f"{len(result.of(result.measures[0]))} seeds; RACU with its least and most; majority {result.majority:.3f}",
        f"{''.ljust(width)}  {'RACU':>24}{head}",
    ]
    for name in result.measures:
        own, areas = result.of(name), result.racu(name)
        means = [sum(curve.values[i] for curve in own) / len(own) for i in range(len(result.levels))]
        area = f"{sum(areas) / len(areas):+.3f} ({min(areas):+.3f} to {max(areas):+.3f})"
        lines.append(f"{name.ljust(width)}  {area:>24}" + "".join(f"{value:>8.3f}" for value in means))
    return lines


PAPERS: dict[str, Callable[..., None]] = {
    "bert": generate_texts,
    "kbvqa": kbvqa,
    "mage": generate_pictures,
    "maskvit": generate_pictures,
    "mdlm": generate_diffused,
    "meshmask": meshmask,
    "roar": roar,
}
"""The commands, by the folder of their paper in train/papers."""
papers = typer.Typer(
    name="paper",
    no_args_is_help=True,
    help="What only one paper has: generate with its model, compare rollouts, or run its own evaluation.",
)
for _name, _command in PAPERS.items():
    papers.command(name=_name)(with_flags(_command))
