"""Commands of the release before run under their former names, after one line that gives the new one."""

import pytest
import typer.main
from typer.testing import CliRunner

from maskstream import train
from maskstream.cli import RENAMED, app
from maskstream.pipelines import masks

CALLS = [([name, "--help"], [*now.split(), "--help"]) for name, now in RENAMED.items() if name != "generate"]
CALLS.append((["doctor", "nowhere", "--size", "8"], ["mask-score", "nowhere", "--size", "8"]))


@pytest.mark.parametrize(("former", "current"), CALLS, ids=lambda words: words[0])
def test_a_former_name_runs_the_command_and_says_the_new_name_once(former, current):
    old, new = (CliRunner().invoke(app, words) for words in (former, current))
    assert (old.exit_code, old.stdout, str(old.exception)) == (new.exit_code, new.stdout, str(new.exception))
    assert " ".join(old.stderr.split()).count(f"`maskstream {former[0]}` is now `maskstream {current[0]}") == 1
    assert "is now" not in new.stderr


def test_former_names_are_not_listed():
    listed = typer.main.get_group(app).commands.keys()
    assert RENAMED.keys() & listed == {"generate"}  # hidden
    assert {"doctor", "mask-score", "dataset-card"} <= listed


@pytest.mark.parametrize(
    ("package", "former", "current"),
    [
        (masks, "Law", "RatioSchedule"),
        (masks, "RatioLaw", "ProportionSchedule"),
        (masks, "LAWS", "SCHEDULES"),
        (train, "Replayed", "ReplayedStep"),
        (train, "FineTuned", "FineTuneResult"),
    ],
)
def test_a_former_name_of_python_is_the_current_one_with_a_warning(package, former, current):
    with pytest.warns(
        DeprecationWarning, match=rf"{former} is now {package.__name__}\.{current}; the next release"
    ) as all_:
        assert getattr(package, former) is getattr(package, current)
    assert len(all_) == 1
    assert former not in package.__all__
