"""Options that are declared once: on a field, with type, default, limits and help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.cli.flags import with_flags
from maskstream.preprocess import make_shards
from maskstream.preprocess.job.options import JobOptions
from maskstream.shards.flag import DataFlag, RunFlag, read_flag, split_list
from maskstream.shards.keywords import takes_fields
from maskstream.shards.limits import check_fields
from maskstream.train.core.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class Settings:
    share: Annotated[float, RunFlag("A share.", min=0, max=1)] = 0.5
    kind: Annotated[Literal["a", "b"], RunFlag("A kind.")] = "a"
    names: Annotated[Sequence[str], DataFlag("A name.", "--name -n")] = ()
    words: Annotated[Sequence[str], DataFlag("Words.", parse=split_list)] = ("x", "y")
    pairs: Annotated[Mapping[str, str], DataFlag("A pair.", metavar="A=B")] = field(default_factory=dict)
    fast: Annotated[bool, RunFlag("Fast.")] = False
    resume: Annotated[bool, RunFlag("Resume.")] = True
    file: Annotated[Path | str | None, DataFlag("A file.")] = None
    internal: int = 3

    def __post_init__(self):
        check_fields(self)


def run(*words):
    """The settings that a command of them gets from a command line, or its error."""
    found = []
    own = typer.Typer()

    def command(data: Annotated[str, DataFlag("Data.")], *, settings: Settings):
        found.append((data, settings))

    own.command()(with_flags(command))
    result = CliRunner().invoke(own, words, terminal_width=100)
    return found[0] if found else result


def test_fields_become_options_with_their_defaults():
    assert run("d") == ("d", Settings())


def test_every_kind_of_option_is_read():
    words = "--share 1 --kind b --name p -n q --words u,v --pairs k=v=w --fast --no-resume --file f"
    assert run("d", *words.split())[1] == Settings(
        share=1,
        kind="b",
        names=("p", "q"),
        words=("u", "v"),
        pairs={"k": "v=w"},
        fast=True,
        resume=False,
        file=Path("f"),
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--share 2", 2),
        ("--kind c", 2),
        ("--pairs k", 2),
        ("--internal 4", 2),
        ("--no-fast", 2),
        ("--file s3://a/b", 1),
    ],
)
def test_what_is_not_allowed_is_refused(words, code):
    assert run("d", *words.split()).exit_code == code


def test_the_help_has_the_flag_in_its_panel():
    shown = run("--help").output
    for text in ("A share.", "[default: 0.5]", "0<=x<=1", "[default: x,y]", "─ Data ", "─ Run "):
        assert text in shown
    assert "internal" not in shown


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"kind": "c"}])
def test_limits_and_choices_hold_in_python_too(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Settings(**wrong)


def test_a_function_takes_the_config_or_its_fields():
    @takes_fields(Settings)
    def count(first, second=2, options=None):
        return first, second, options

    assert count(1, share=0.1) == (1, 2, Settings(share=0.1))
    assert count(1, 3, Settings(share=0.1)) == count(1, second=3, options=Settings(share=0.1))
    assert count(1, 3, Settings(fast=True), share=0.1) == (1, 3, Settings(fast=True, share=0.1))
    assert signature(count).parameters["share"].default == 0.5
    with pytest.raises(TypeError, match="shared"):
        count(1, shared=0.1)


@pytest.mark.parametrize(("name", "config"), [("shards", JobOptions), ("train", TrainOptions)])
def test_defaults_of_commands_are_those_of_the_fields(name, config):
    options = {option.name: option for option in typer.main.get_group(app).commands[name].params}
    declared = [one for one in fields(config) if read_flag(one.type)]
    assert len(declared) > 15
    assert all(options[one.name].default in (one.default, None) for one in declared)


def test_a_setting_has_one_default():
    assert signature(make_shards).parameters["max_rejects"].default == JobOptions().max_rejects == 0.05
