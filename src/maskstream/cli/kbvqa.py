"""`maskstream paper kbvqa`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import Json, say

if TYPE_CHECKING:
    from maskstream.train.papers.kbvqa.evaluate import KbvqaResult, Predictor, Question


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
    from maskstream.samples.image_text.wordnet import WordNet
    from maskstream.train.papers.kbvqa.evaluate import kbvqa as asked
    from maskstream.train.papers.kbvqa.evaluate import questions_of
    from maskstream.train.papers.kbvqa.glosses import Glosses

    questions, before = questions_of(data, samples, seed), questions_of(known, 1 << 30, seed)
    glosses = None
    if wordnet is not None:
        glosses = Glosses.of([f"{one.word}: {one.gloss}" for one in WordNet.read(wordnet).synsets.values()])
    result, replies = asked(
        questions,
        before,
        _predictor(predictor, command, timeout, before, data),
        name=command or predictor,
        data=data,
        perspectives=[one.strip() for one in perspectives.split(",") if one.strip()],
        shots=shots,
        glosses=glosses,
        passages=0 if glosses is None else passages,
        hidden=[float(one) for one in hidden.split(",") if one.strip()],
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "kbvqa.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    page = kbvqa_page(result, replies, out / "kbvqa.html")
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    for line in table(result):
        say(line)
    say(f"wrote {page} and kbvqa.json beside it")


def _predictor(name: str, command: str | None, timeout: float, known: list[Question], data: str) -> Predictor:
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


def table(result: KbvqaResult) -> list[str]:
    """The lines of a table: a row for each perspective and kind of question."""
    lines = [f"{result.predictor} on {result.questions['all']:,} questions of {result.data}"]
    for perspective, kinds in result.scores.items():
        for kind, figures in kinds.items():
            own = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
            lines.append(f"{perspective:12} {kind:10} {own}; most frequent answer {result.frequent[kind]:.3f}")
    lines += [f"{ratio:.0%} of the picture hidden: exact {value:.3f}" for ratio, value in result.occluded.items()]
    return lines
