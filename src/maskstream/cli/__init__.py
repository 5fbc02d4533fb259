"""The `maskstream` command, with one sub-command per step from raw media to a trained model.

Exit codes: 0 success; 1 an error in data or settings, with a message; 2 a wrong command line; 130 interrupted
(Ctrl-C); 143 terminated (SIGTERM).
"""

import atexit
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.logging import RichHandler
from rich.markup import escape
from typer.core import TyperGroup

from maskstream import __version__
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.printable import PrintableFormatter

from .catalogue import datasets, doctor, masks, recipes
from .documentation import docs
from .flags import with_flags
from .look import bench, flow, gallery, mask_score, preview
from .measured import evaluate, probe
from .options import DataCommand
from .papers import generate, papers
from .runs import demo, embed, export, finetune, replay, report
from .shards import shards
from .splits import append, curate, dataset_card, erase, fetch, index, inspect, merge, remove, split, verify
from .targets import targets
from .terminal import INTERRUPTED, TERMINATED, console, errors
from .train import train

RENAMED = {
    "card": "dataset-card",
    "generate": "paper bert, mage or maskvit",
    "info": "doctor",
    "kbvqa": "paper kbvqa",
    "roar": "paper roar",
    "rollout": "paper meshmask",
}
"""Names of commands of the previous release, and their current names."""


class _Renamed(TyperGroup):
    """Runs a command under its former name, after printing the new name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        now = RENAMED.get(name)
        if name == "doctor" and any(not word.startswith("-") for word in rest):
            now = "mask-score"  # until 0.2 `doctor` scored the masks of a split or of runs; it now takes no argument
        if now:
            errors.print(f"`maskstream {name}` is now `maskstream {now}`; the next release drops the old name")
            if name != "generate":  # the paper depends on the run's model, so this stays a command
                args = [*now.split(), *rest]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="maskstream",
    cls=_Renamed,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Streaming data pipelines for masked pre-training: raw media, tar shards, masked batches, a compact trainer.",
)
GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make": (demo, shards, index, append, merge, split, curate, remove, erase, dataset_card, verify),
    "Look": (datasets, recipes, masks, inspect, preview, flow, gallery, doctor, docs),
    "Train": (train, finetune, report, replay, export, embed, targets),
    "Measure": (evaluate, bench, mask_score, probe),
    "Cluster": (fetch,),
}
"""The commands, as `--help` shows them."""
for _group, _commands in GROUPS.items():
    for _command in _commands:
        _kind = DataCommand if _command in (preview, bench, flow, mask_score) else None
        app.command(cls=_kind, rich_help_panel=_group)(with_flags(_command))
app.add_typer(papers, rich_help_panel="Measure")
app.command(hidden=True)(with_flags(generate))


def _version(value: bool) -> None:
    if value:
        console.print(f"maskstream {__version__}", highlight=False)
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Streaming data pipelines for masked pre-training: raw media, tar shards, masked batches, a compact trainer."""
    handler = RichHandler(console=errors, show_path=False)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def main() -> None:
    """Run the command. Errors about data and settings print one line and set the exit code, without a traceback.

    SIGTERM ends the command like Ctrl-C. So does SIGINT if it is ignored, as in a background job of a script.
    """
    signal.signal(signal.SIGTERM, _exit_through_finally)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows escapes
    try:
        app()
    except ValueError as error:
        _fail(error, 2)
    except (MaskstreamError, FloatingPointError) as error:  # the last line is for a loss that is not finite
        _fail(error, 1)
    except OSError as error:
        _fail(explain_os_error(error), 1)
    except SystemExit as ended:
        if ended.code in (INTERRUPTED, TERMINATED):
            errors.print(
                "interrupted; run the same command to continue (without --overwrite or --no-resume)", highlight=False
            )
        raise


def run() -> NoReturn:
    """Run `main` in this process and exit before the interpreter unloads modules and native libraries.

    Threads of these libraries are still running then, and one that needs the interpreter aborts the process
    (docs/robustness.md).
    """
    code: object = 1
    # Registered first, so called last, after the handlers that the command registers, when all threads are joined.
    atexit.register(lambda: _leave(code if isinstance(code, int) else int(code is not None)))
    try:
        main()
    except SystemExit as ended:
        code = ended.code
        raise
    code = 0
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the reader of a pipe has exited, or the stream is closed
            code = code or 120
    os._exit(code)


def _exit_through_finally(number: int, frame: FrameType | None) -> None:
    """Exit through all `finally` blocks, which end the worker processes and release the locks."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


def explain_os_error(error: OSError) -> str:
    """Return a system error in one line: the path, the reason and the remedy."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return (
        f"{os.fsdecode(error.filename)} cannot be opened ({error.strerror}); pass a file that exists and is readable, "
        "or for output a path in a writable folder"
    )


def _fail(error: Exception | str, code: int) -> None:
    errors.print(f"[red]error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(code)
