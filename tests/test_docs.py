"""README and docs: what they import exists and takes the options shown; so do their commands and make's targets."""

import ast
import importlib
import inspect
import re
import shlex
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
    """The names that a piece of code imports from maskstream, and what they are."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskstream"):
            module = importlib.import_module(node.module)
            names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    return names


def called(node, names):
    """The maskstream object that a call is of, or None."""
    func = node.func
    if isinstance(func, ast.Name):
        return names.get(func.id)
    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id in names:
        return getattr(names[func.value.id], func.attr)
    return None


def misfit(target, node):
    """Why a call's arguments are none of what is called, or None."""
    keywords = {word.arg: None for word in node.keywords if word.arg}
    try:
        inspect.signature(target).bind_partial(*[None] * len(node.args), **keywords)
    except TypeError as error:
        return f"{ast.unparse(node)}: {error}"
    return None


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
