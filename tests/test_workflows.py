"""The workflows for a public host: what actionlint says of them, and that the commands that they run are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def linted(*paths: Path) -> subprocess.CompletedProcess[str]:
    """What actionlint says of workflow files."""
    program = Path(sys.executable).with_name("actionlint")
    return subprocess.run([program, "-no-color", *paths], capture_output=True, text=True, check=False)


def test_actionlint_passes() -> None:
    done = linted(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in WORKFLOWS} == {"tests", "docs", "publish"}


def test_actionlint_finds_a_job_that_is_not_there(tmp_path: Path) -> None:
    text = (ROOT / ".github/workflows/publish.yml").read_text().replace("needs: build", "needs: built")
    (tmp_path / "publish.yml").write_text(text)
    done = linted(tmp_path / "publish.yml")
    assert done.returncode == 1
    assert '"built"' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("end", "said"), [("0", "1 skipped"), ("inf", "1 passed")])
def test_no_test_begins_when_the_time_of_a_run_is_over(end: str, said: str) -> None:
    one = f"{__file__}::test_actionlint_passes"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", one]
    env = {**os.environ, "TESTS_END": end}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
    assert ("the time of this run is over" in done.stdout) == (end == "0")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_commands_of_a_workflow_are_there(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands:
        assert {word for word in command.split()[1:] if "=" not in word} <= rules or not command.startswith("make ")
        assert not command.startswith(".") or (ROOT / command).is_file()


def test_only_the_job_that_publishes_may_ask_for_a_token() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    assert jobs["permissions"] == {"contents": "read"}
    assert {name for name, job in jobs["jobs"].items() if "id-token" in job.get("permissions", {})} == {"pypi"}
    assert len(jobs["jobs"]["pypi"]["steps"]) == 2, "no code of the repository runs beside the token"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_of_issues_has_what_hosts_ask_for(path: Path) -> None:
    template = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert set(template) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= template.keys()
    named = [part["id"] for part in template["body"] if part["type"] != "markdown"]
    assert len(named) == len(set(named)) > 0
    assert all(part["attributes"].get("label") for part in template["body"] if part["type"] != "markdown")
