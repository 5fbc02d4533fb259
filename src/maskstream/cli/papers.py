"""`maskstream paper`: what one paper has and others have not; and the names under which these commands stood before."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .terminal import Device, Json, errors, say, tell, with_checks

if TYPE_CHECKING:
    from maskstream.shards.format.manifest import Manifest
    from maskstream.train.papers.kbvqa.evaluate import KbvqaResult, Predictor, Question
    from maskstream.train.papers.roar.roar import RoarResult

_TEXT, _PAGE = "Text", "Other samples"
Order = Literal["random", "left_to_right", "confident"]


def generate_texts(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run of a masked language model, such as of pmlm-tiny.", show_default=False),
    ],
    data: Annotated[str, typer.Option(help="A split with the tokenizer of the run.", show_default=False)],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.")] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.")] = 24,
    order: Annotated[Order, typer.Option(help="Which blank is filled in next.")] = "random",
    count: Annotated[int, typer.Option(min=1, help="Texts.")] = 3,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the most probable.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
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
    run: Annotated[
        Path, typer.Argument(help="Folder of a run of a masked diffusion model, such as mdlm-tiny.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="A split with the tokenizer of the run.", show_default=False)],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.")] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.")] = 24,
    steps: Annotated[int, typer.Option(min=1, help="Steps from all hidden to none.")] = 64,
    count: Annotated[int, typer.Option(min=1, help="Texts.")] = 3,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the most probable.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
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
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, such as of mage-tiny or maskvit-tiny.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="A split of real samples.", show_default=False)],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of iterative decoding.")] = 12,
    count: Annotated[int, typer.Option(min=1, help="Samples.")] = 16,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0: the most probable [default: the model's]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file [default: RUN/generated.html]", show_default=False)
    ] = None,
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
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, such as of pmlm-tiny or mage-tiny.", show_default=False)
    ],
    data: Annotated[
        str, typer.Option(help="A split: with the tokenizer of the run, or of real samples.", show_default=False)
    ],
    text: Annotated[str, typer.Option(help="What is there already; [MASK] is a blank.", rich_help_panel=_TEXT)] = "",
    blanks: Annotated[int, typer.Option(min=0, help="Blanks behind the text.", rich_help_panel=_TEXT)] = 24,
    order: Annotated[Order, typer.Option(help="Which blank is filled in next.", rich_help_panel=_TEXT)] = "random",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of iterative decoding.", rich_help_panel=_PAGE)] = 12,
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file [default: RUN/generated.html]", show_default=False, rich_help_panel=_PAGE),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Samples [default: 3 texts, 16 others]", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="0: the most probable [default: 0.8 of texts, else the model's]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides all draws.")] = 0,
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
    data: Annotated[str, typer.Argument(help="The split whose questions are asked.", show_default=False)],
    known: Annotated[str, typer.Option(help="The split of examples and of known answers.", show_default=False)],
    predictor: Annotated[
        str, typer.Option(help="frequent, the folder of a run of vqa-tiny, or package.module:name of a function.")
    ] = "frequent",
    command: Annotated[
        str | None,
        typer.Option(help="A program that replies to JSON lines, with its arguments; no shell.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each reply of the program.")] = 60.0,
    perspectives: Annotated[str, typer.Option(help="With commas between.")] = "commonsense,knowledge,rationale",
    shots: Annotated[int, typer.Option(min=0, help="Examples before a question, in one composite picture.")] = 0,
    wordnet: Annotated[
        Path | None,
        typer.Option(help="WordNet's folder (data.noun), whose glosses are retrieved.", show_default=False),
    ] = None,
    passages: Annotated[int, typer.Option(min=1, help="Glosses that a prompt gets.")] = 3,
    hidden: Annotated[
        str, typer.Option(help="Shares of the picture's patches to hide in further runs, with commas between.")
    ] = "",
    samples: Annotated[int, typer.Option(min=1, help="The most questions.")] = 512,
    seed: Annotated[int, typer.Option(help="Draws questions, examples and patches.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder of the result.")] = Path("runs/kbvqa"),
    as_json: Json = False,
) -> None:
    """Ask a predictor questions about images that need knowledge, from three perspectives (docs/kbvqa.md).

    It writes kbvqa.json and a page of questions and replies, kbvqa.html, into the folder.
    """
    from maskstream.pages.kbvqa import kbvqa_page
    from maskstream.shards.format.manifest import Manifest
    from maskstream.train.papers.kbvqa.evaluate import Glosses, KbvqaSettings, read_questions
    from maskstream.train.papers.kbvqa.evaluate import kbvqa as asked

    split = Manifest.load(data)
    questions, before = read_questions(split, samples, seed), read_questions(Manifest.load(known), 1 << 30, seed)
    glosses = None if wordnet is None else Glosses.read(wordnet)
    settings = KbvqaSettings(
        perspectives=[one.strip() for one in perspectives.split(",") if one.strip()],
        shots=shots,
        glosses=glosses,
        passages=0 if glosses is None else passages,
        hidden=[float(one) for one in hidden.split(",") if one.strip()],
        seed=seed,
    )
    replier = _predictor(predictor, command, timeout, before, split)
    result, replies = asked(questions, before, replier, settings, name=command or predictor, data=data)
    out.mkdir(parents=True, exist_ok=True)
    (out / "kbvqa.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    page = kbvqa_page(result, replies, out / "kbvqa.html")
    tell(result.to_dict(), [*tabulate_answers(result), f"wrote {page} and kbvqa.json beside it"], as_json)


def _predictor(name: str, command: str | None, timeout: float, known: list[Question], data: Manifest) -> Predictor:
    from maskstream.shards.named import imported
    from maskstream.train.papers.kbvqa.predictors import CommandPredictor, frequent, of_callable, of_run

    if command is not None:
        words = shlex.split(command)
        if not words:
            raise ValueError("--command is empty; give a program with its arguments")
        return CommandPredictor(command=tuple(words), timeout_s=timeout)
    if name == "frequent":
        return frequent(known)
    if Path(name, "run.json").exists():
        return of_run(Path(name), data)
    if ":" not in name:
        raise ValueError(f"{name!r} is no predictor; legal are frequent, the folder of a run, and package.module:name")
    return of_callable(imported(name, "predictor"))


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
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs of a next-step model on meshes.", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="A split of simulations, preferably for validation.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The HTML file to write [default: none]", show_default=False)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Trajectories [default: all]", show_default=False)] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each [default: those of the shortest]", show_default=False),
    ] = None,
    component: Annotated[
        str | None, typer.Option(help="The mesh, if samples have several [default: the only one]", show_default=False)
    ] = None,
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
    run: Annotated[
        str,
        typer.Argument(help="The name of a recipe of a text classifier, or the folder of a run.", show_default=False),
    ],
    data: Annotated[str, typer.Option(help="The labelled split to train on.", show_default=False)],
    test: Annotated[str, typer.Option(help="The labelled split to test on.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder of the result.")] = Path("runs/roar"),
    measures: Annotated[
        str | None,
        typer.Option(
            help="With commas between: gradient, input-x-gradient, integrated-gradients, attention "
            "[default: all that the model has]",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set a field of the recipe, such as model.labels=2; repeatable.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each level, with other weights and orders.")] = 3,
    step: Annotated[int, typer.Option(min=1, help="Per cent of the tokens from one level to the next.")] = 10,
    recursive: Annotated[
        bool, typer.Option(help="Rank the tokens of a level by the model of the level before, not by the first one.")
    ] = True,
    samples: Annotated[int, typer.Option(min=1, help="The most test texts.")] = 2048,
    points: Annotated[int, typer.Option(min=1, help="Points of integrated gradients.")] = 20,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each training [default: the recipe's]", show_default=False)
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure how faithful measures of importance are: hide what they call important, and train again (docs/roar.md).

    It writes roar.json and a page of curves, roar.html, into the folder. The same command continues.
    """
    from maskstream.pages.roar import roar_page
    from maskstream.pipelines.stream.topology import usable_device
    from maskstream.shards.config import with_set
    from maskstream.train.core.run_folder import run_recipe
    from maskstream.train.papers.roar.roar import RoarSettings
    from maskstream.train.papers.roar.roar import roar as compared
    from maskstream.train.recipes import named_recipe

    recipe = run_recipe(Path(run)) if Path(run, "run.json").exists() else named_recipe(run)
    settings = RoarSettings(
        measures=None if measures is None else [name.strip() for name in measures.split(",") if name.strip()],
        seeds=seeds,
        step=step,
        recursive=recursive,
        samples=samples,
        points=points,
        steps=steps,
    )
    said = (lambda line: None) if as_json else say
    result = compared(with_set(recipe, set_ or []), data, test, out, settings, device=usable_device(device), said=said)
    page = roar_page(result, data, out / "roar.html")
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
    papers.command(name=_name)(with_checks(_command))


def moved(command: Callable[..., None], before: str, now: str) -> Callable[..., None]:
    """The command under its name of the release before, which first says the new one."""

    @wraps(command)
    def former(*args: Any, **given: Any) -> None:
        errors.print(f"`maskstream {before}` is now `maskstream paper {now}`; the next release has the new name alone")
        command(*args, **given)

    return former
