"""README and docs: the names, settings, batch fields, commands, make targets, files and rooms that they show exist."""

import ast
import importlib
import inspect
import re
import shlex
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import typer.main

from maskstream.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = [(page.name, text) for page in PAGES for kind, text in BLOCK.findall(page.read_text()) if kind == "python"]
SHELL = [text for page in PAGES for kind, text in BLOCK.findall(page.read_text()) if kind in {"", "bash", "sh"}]
COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def imported(tree):
    """The objects that a piece of code imports from maskstream, by name."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskstream"):
            module = importlib.import_module(node.module)
            names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    return names


def called(node, names):
    """The maskstream object that is called, or None."""
    func = node.func
    if isinstance(func, ast.Name):
        return names.get(func.id)
    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id in names:
        return getattr(names[func.value.id], func.attr)
    return None


def misfit(target, node):
    """Why the arguments of a call do not fit `target`, or None."""
    keywords = {word.arg: None for word in node.keywords if word.arg}
    try:
        inspect.signature(target).bind_partial(*[None] * len(node.args), **keywords)
    except TypeError as error:
        return f"{ast.unparse(node)}: {error}"
    return None


def settings_of(target):
    """The settings of a loader's function, which its TypedDict names; None for other functions."""
    words = [p for p in inspect.signature(target).parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    if not words or not inspect.isfunction(target):
        return None
    return set(typing.get_type_hints(typing.get_args(typing.get_type_hints(target)[words[0].name])[0]))


def batch_of(target):
    """The names that a batch of a loader's function has, or None if the function opens no loader."""
    if not inspect.isfunction(target):
        return None
    found = typing.get_args(typing.get_type_hints(target).get("return"))
    return set(dir(found[0])) | {f.name for f in fields(found[0])} if found and is_dataclass(found[0]) else None


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page}-{i}" for i, (page, _) in enumerate(PYTHON)])
def test_settings_and_batch_fields_exist(page, code):
    tree = ast.parse(code)
    names = imported(tree)
    calls = [(called(node, names), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for target, node in calls:
        legal = settings_of(target) if target is not None else None
        assert legal is None or {word.arg for word in node.keywords} <= legal, ast.unparse(node)
    batches = [found for target, _ in calls if target is not None and (found := batch_of(target))]
    read = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "batch"}
    if batches:
        assert read <= set.union(*batches), page


def test_settings_and_batch_fields_are_found():
    opened = importlib.import_module("maskstream.pipelines").video_loader
    assert {"clip", "batch_size"} <= settings_of(opened)
    assert {"video", "pixel_values", "key"} <= batch_of(opened)
    assert "waveform" not in batch_of(opened)


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page}-{i}" for i, (page, _) in enumerate(PYTHON)])
def test_code_names_what_there_is(page, code):
    tree = ast.parse(code)
    names = {}
    for text in (other for name, other in PYTHON if name == page):
        names |= imported(ast.parse(text))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [(called(node, names), node) for node in calls]
    assert [why for target, node in made if target is not None and (why := misfit(target, node))] == []


def shell_lines(program):
    """The words behind `program` on each line of a shell block that begins with it."""
    lines = [line.split("#")[0].strip() for text in SHELL for line in text.replace("\\\n", " ").splitlines()]
    lines = [line.removeprefix(".venv/bin/") for line in lines]
    return [shlex.split(line.replace("[", "").replace("]", ""))[1:] for line in lines if line.startswith(program + " ")]


def test_commands_have_the_options_shown():
    shown = shell_lines("maskstream")
    assert len(shown) > 5
    for command, *words in shown:
        legal = {name for option in COMMANDS[command].params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= legal, (command, words)


def test_commands_named_in_the_text_exist():
    named = {name for page in PAGES for name in re.findall(r"`maskstream ([a-z]+)", page.read_text())}
    assert len(named) > 5
    assert named <= set(COMMANDS)


def test_make_has_the_targets_and_variables_shown():
    shown = shell_lines("make")
    assert len(shown) > 5
    makefile = (ROOT / "Makefile").read_text()
    for words in shown:
        for word in words:
            name = word.split("=")[0]
            assert name in TARGETS or re.search(rf"\b{name}\b", makefile), words


def test_links_lead_to_files():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)


FOLDERS = ("shards", "preprocess", "pipelines", "train", "src", "tests", "benchmarks", "docs")


def test_files_named_in_the_text_exist():
    for page in PAGES:
        for path in re.findall(r"`([a-z_]+/[a-z0-9_/.]*)`", page.read_text()):
            if path.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
                assert (ROOT / path).exists(), (page.name, path)


def rooms_listed():
    """The rows of the tables of rooms in docs/architecture.md: a folder and the files to start with."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = text[text.index("## Rooms") : text.index("## The life of a clip")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    cells = [(next(cell for cell in row if cell.startswith("`")), row[-1]) for row in rows if "`" in "".join(row[:2])]
    return [(folder.strip("`"), re.findall(r"`([^`]+)`", start)) for folder, start in cells]


def test_the_tables_of_rooms_list_every_room_and_files_that_exist():
    listed = rooms_listed()
    for folder, starts in listed:
        assert starts, folder
        for start in starts:
            assert (ROOT / folder / start).is_file(), (folder, start)
    rooms = {f"{path.parent.relative_to(ROOT)}/" for top in FOLDERS[:4] for path in (ROOT / top).glob("*/__init__.py")}
    assert rooms <= {folder for folder, _ in listed}
