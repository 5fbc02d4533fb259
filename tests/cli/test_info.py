"""`maskstream doctor` says what is here, what is lacking and how to get it, and no secret."""

import json
from importlib import import_module
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from maskstream.cli import app

info = import_module("maskstream.cli.catalogue")


def facts():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0
    return json.loads(done.output)


def test_versions_are_those_of_the_packages():
    found = facts()
    for name in ("maskstream", *info.PACKAGES):
        assert found[name] == version(name)
    assert "libavcodec" in found["FFmpeg in av"]
    assert set(found) >= {"Python", "CPU", "CUDA", "DALI", "cache of indexes"}


def test_an_extra_says_what_it_lacks_and_the_command_that_brings_it(monkeypatch):
    needs = [
        "numpy>=2.0",
        "numpy>=2.0; extra == 'there'",
        "torch[x]==0.0.1; extra == 'old'",
        "nonesuch<2,>=1; extra == 'gone'",
        'av==18.*; python_version >= "3" and extra == "range"',
    ]
    monkeypatch.setattr(info, "requires", lambda package: needs)
    monkeypatch.setattr(info, "_version", lambda package: {"numpy": "2.4", "torch": "2", "av": "18.1"}.get(package, ""))
    assert info.facts()["extra gone"] == "lacks nonesuch: pip install 'maskstream[gone]'"
    assert {name: words for name, words in info.facts().items() if name.startswith("extra")} == {
        "extra there": "there",
        "extra old": "lacks torch: pip install 'maskstream[old]'",
        "extra gone": "lacks nonesuch: pip install 'maskstream[gone]'",
        "extra range": "there",
    }


def test_a_library_that_an_extra_needs_is_named_with_its_package_of_debian(monkeypatch):
    monkeypatch.setattr(info, "find_library", lambda name: None)
    assert "lacks libEGL.so: apt-get install libegl1 libgl1-mesa-dri" in facts()["extra walks"]


def test_folders_follow_the_environment_and_no_secret_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKSTREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    monkeypatch.setenv("HF_TOKEN", "do-not-tell")
    found = facts()
    assert found["cache of indexes"] == str(tmp_path)
    assert "do-not-tell" not in json.dumps(found)


@pytest.mark.parametrize("extra", ["archives", "walks"])
def test_the_extras_are_those_of_the_package(extra):
    assert f"extra {extra}" in facts()
