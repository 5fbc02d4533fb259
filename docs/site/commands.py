"""The command reference: a page per group of commands, with a heading per option, so that a search finds each."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

INDEX = "reference/commands/index.md"
_PAGE = re.compile(r"`maskstream docs ([\w/-]+)(#[\w-]+)?`")
"""A reference to a page in a help text."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the commands below their index in the navigation."""
    pages = [{"maskstream": [INDEX, *({f"maskstream {name}": _page(name)} for name in load())]}]
    for group in config.nav or []:
        for entries in group.values():
            if INDEX in entries:
                at = entries.index(INDEX)
                entries[at : at + 1] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    commands = load()
    files.append(File.generated(config, INDEX, content=write_index(commands)))
    for name, command in commands.items():
        files.append(File.generated(config, _page(name), content=write_command(name, command)))
    return files


def load() -> dict[str, Any]:
    """The commands by name, including those below `paper`."""
    from typer.main import get_command

    from maskstream.cli import app

    return dict(_list_commands(get_command(app), ()))


def _list_commands(group: Any, path: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _list_commands(command, [*path, name])
        elif not command.hidden:
            yield " ".join([*path, name]), command


def write_index(commands: Mapping[str, Any]) -> str:
    """The table of all commands, with the first sentence on each."""
    rows = [
        f"| [`maskstream {name}`]({_page(name).rpartition('/')[2]}) | {_split_help(command)[0]} |"
        for name, command in commands.items()
    ]
    return "\n".join(["# Commands", "", "| command | description |", "| --- | --- |", *rows]) + "\n"


def write_command(name: str, command: Any) -> str:
    """The page of a command: its description, and its arguments and options by panel."""
    context = command.make_context(name, [], resilient_parsing=True)
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        if record := parameter.get_help_record(context):
            head, text = record
            is_option = parameter.opts[0].startswith("-")
            panel = (parameter.rich_help_panel or "Options") if is_option else "Arguments"
            heading = parameter.opts[0] if is_option else head.split()[0].upper()
            panels.setdefault(panel, []).extend([f"### `{heading}`", f"`{head}`: {_link_pages(text)}"])
    usage = " ".join(command.collect_usage_pieces(context))
    text = [f"# maskstream {name}", *_split_help(command), f"```bash\nmaskstream {name} {usage}\n```"]
    for panel, parts in panels.items():
        text += [f"## {panel}", *parts]
    return "\n\n".join(text) + "\n"


def _split_help(command: Any) -> list[str]:
    """The paragraphs of a command's help."""
    return [_link_pages(" ".join(paragraph.split())) for paragraph in (command.help or "").split("\n\n")]


def _link_pages(text: str) -> str:
    """A text with links to the pages that it refers to; angle brackets are escaped."""
    text = re.sub(r"(?<!`)<(?=\w)", "&lt;", text)
    return _PAGE.sub(lambda found: f"[{found[1]}](../../{found[1]}.md{found[2] or ''})", text)


def _page(name: str) -> str:
    return f"reference/commands/maskstream-{name.replace(' ', '-')}.md"
