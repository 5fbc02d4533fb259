"""`maskstream finetune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .terminal import INTERRUPTED, Json, say, show


def finetune(
    run: Annotated[Path, typer.Argument(help="The folder of a run of a masked autoencoder.", show_default=False)],
    data: Annotated[str, typer.Option(help="The labelled split to train on.", show_default=False)],
    test: Annotated[str, typer.Option(help="The labelled split to test on.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The folder of the fine-tuning [default: RUN/finetune]", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set a field, such as schedule.epochs=20, schedule.base_lr=5e-4 or model.mixup=0; repeatable.",
            show_default=False,
        ),
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Begin with initial weights instead of the run's, for comparison.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps to train [default: 50 epochs]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the head, the order and the crops.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    resume: Annotated[bool, typer.Option(help="Continue from the newest checkpoint that is whole.")] = True,
    as_json: Json = False,
) -> None:
    """Train the encoder of a run further with labels, and measure its accuracy or mAP (docs/probes.md).

    It writes what `maskstream train` writes, and finetune.json, into the folder.
    """
    from maskstream.pipelines.stream.topology import resolved_device
    from maskstream.train.evaluate.finetune import finetune as train

    folder = out or run / "finetune"
    result = train(
        run,
        data,
        test,
        folder,
        set=set_ or (),
        steps=steps,
        scratch=scratch,
        seed=seed,
        device=resolved_device(device),
        save_every=save_every,
        resume=resume,
    )
    if result is None:
        raise typer.Exit(INTERRUPTED)
    (folder / "finetune.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    show(result.to_dict(), as_json)
    if not as_json:
        say(f"wrote {folder / 'finetune.json'}")
