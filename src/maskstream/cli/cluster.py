"""Hands a command over to a cluster: its words again, for a script, and what became of the script."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

from .terminal import say, show

if TYPE_CHECKING:
    from maskstream.preprocess.executors.slurm import SlurmJob


def words_of(context: typer.Context, leave: Collection[str]) -> list[str]:
    """The words of the command line of `context`, after the command, without the parameters named in `leave`."""
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in leave or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(parameter.opts[0])
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (parameter.opts[0], str(one))]
        else:
            words += [parameter.opts[0], str(value)]
    return words


def submit(job: SlurmJob, as_json: bool) -> None:
    """Write the scripts of a job, print them, and submit them where there is Slurm."""
    paths = job.write()
    if not as_json:
        for path, text in zip(paths, job.scripts().values(), strict=True):
            say(f"# {path}\n{text}")
    jobs = job.submit()
    facts = {"parts": job.parts, "scripts": [str(path) for path in paths], "submit": job.by_hand()}
    if jobs is not None:
        show(
            {**facts, "jobs": list(jobs)} if as_json else {"submitted": f"{jobs[0]} and, after it, {jobs[1]}"}, as_json
        )
    elif as_json:
        show(facts, as_json)
    else:
        say(f"there is no sbatch on this machine; on one of the cluster, run\n{job.by_hand()}")
