"""`maskstream docs` and the command reference: pages, sections, and the pages to which help and errors refer."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.cli.documentation import FOLDER
from tests.doc_tool import doc_tool

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for room in ("shards", "preprocess", "pipelines", "train", "src/maskstream/cli")
    for path in (ROOT / room).rglob("*.py")
]
NAMED = {found for path in FILES for found in re.findall(r"`maskstream docs ([\w/#-]+)`", path.read_text())}


def run_docs(*words):
    done = CliRunner().invoke(app, ["docs", *words])
    return done.output, done.exception


def test_all_pages_are_listed_by_their_titles():
    output, error = run_docs()
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert error is None
    assert {line.split()[0] for line in output.splitlines()} == pages
    assert re.search(r"^  stores +Object stores", output, re.MULTILINE)


@pytest.mark.parametrize("page", sorted(NAMED))
def test_pages_in_help_and_errors_exist(page):
    output, error = run_docs(page)
    assert error is None
    assert output.startswith("#")


def test_a_section_ends_at_the_next_heading_of_its_depth(tmp_path, monkeypatch):
    text = "# Page\n\n## One\n\n```bash\n# no heading\n```\n\n### Below\n\nstill one\n\n## Two-fold: x\n\ntwo\n"
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr("maskstream.cli.documentation.FOLDER", tmp_path)
    assert run_docs("page")[0] == text
    assert run_docs("page#one")[0].rstrip() == text[text.index("## One") : text.index("## Two")].rstrip()
    assert run_docs("docs/page.md#two-fold-x")[0] == "## Two-fold: x\n\ntwo\n"


@pytest.mark.parametrize(
    ("page", "answer"), [("store", "did you mean 'stores'"), ("stores#nowhere", "the-cache-of-a-node")]
)
def test_an_unknown_page_or_section_is_an_error_with_the_ones_there_are(page, answer):
    assert FOLDER == ROOT / "docs"
    assert answer in str(run_docs(page)[1])


def test_every_option_has_a_heading_in_the_command_reference():
    tool = doc_tool("commands")
    commands = tool.load()
    assert {"train", "shards", "paper roar"} <= set(commands)
    for name, command in commands.items():
        page = tool.write_command(name, command)
        for parameter in command.params:
            if not parameter.hidden and parameter.opts[0].startswith("--"):
                assert f"\n### `{parameter.opts[0]}`\n" in page, name
    assert "default: 20" in tool.write_command("train", commands["train"])
    assert len(re.findall(r"^\| \[`maskstream ", tool.write_index(commands), re.MULTILINE)) == len(commands)
