"""The files for clusters: what linters and schemas say, and that their commands have the options that they name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from maskstream.cli import app

from .running import EXAMPLES

CLUSTER = EXAMPLES / "cluster"
BATCH = sorted(CLUSTER.glob("*.sbatch"))
KUBERNETES = sorted(CLUSTER.glob("*.yaml"))


def program(name: str, *words: str | Path) -> None:
    command = [Path(sys.executable).with_name(name), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def manifests() -> dict[str, dict[str, Any]]:
    """The objects in the files for Kubernetes, by kind and name."""
    found = [one for path in KUBERNETES for one in yaml.safe_load_all(path.read_text())]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


def commands() -> list[list[str]]:
    """The words after `maskstream` of each command in the files."""
    texts = [path.read_text().replace("\\\n", " ") for path in BATCH]
    found = [shlex.split(line, comments=True) for text in texts for line in text.splitlines() if "srun" in line]
    for one in manifests().values():
        for container in one["spec"].get("template", {}).get("spec", {}).get("containers", ()):
            words = [*container["command"], *container.get("args", ())]
            found.append([part for word in words for part in (shlex.split(word) if " " in word else [word])])
    return [words[words.index("maskstream") + 1 :] for words in found if "maskstream" in words]


def test_the_image_passes_hadolint() -> None:
    program("hadolint", CLUSTER / "Dockerfile")


def test_the_image_is_made_of_all_that_the_wheel_needs() -> None:
    """The build's context is what the list of ignored files lets through."""
    kept = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    project = (EXAMPLES.parent / "pyproject.toml").read_text()
    included = re.search(r"targets\.wheel\]\nonly-include = \[(.*?)\]", project)
    assert included is not None
    folders = {name.partition("/")[0] for name in re.findall(r'"([^"]+)"', included[1])}
    assert kept == folders | {"pyproject.toml", "README.md", "LICENSE"}


def test_the_scripts_for_slurm_pass_shellcheck() -> None:
    program("shellcheck", "--shell=bash", *BATCH)
    assert len(BATCH) == 2


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_the_objects_of_kubernetes_are_legal(version: str) -> None:
    assert len(manifests()) == 4
    for one in manifests().values():
        kubernetes_validate.validate(one, version, strict=True)


def test_the_objects_of_kubernetes_fit_together() -> None:
    found = manifests()
    parts = found["Job k400-shards"]["spec"]
    assert f"/{parts['completions']}" in parts["template"]["spec"]["containers"][0]["args"][0]
    train, service = found["Job k400-train"], found["Service k400-train"]
    pod = train["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    assert f"--nnodes={train['spec']['completions']}" in args
    assert f"--nproc-per-node={pod['containers'][0]['resources']['limits']['nvidia.com/gpu']}" in args
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": train["metadata"]["name"]}
    port = service["spec"]["ports"][0]["port"]
    assert f"--rdzv-endpoint={train['metadata']['name']}-0.{pod['subdomain']}:{port}" in args
    assert {volume["name"] for volume in pod["volumes"]} == {
        one["name"] for one in pod["containers"][0]["volumeMounts"]
    }


def test_every_command_has_the_options_that_are_named() -> None:
    group = typer.main.get_command(app)
    named = commands()
    assert [words[0] for words in named] == ["shards", "train", "shards", "shards", "train"]
    for words in named:
        legal = {option for parameter in group.commands[words[0]].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= legal
