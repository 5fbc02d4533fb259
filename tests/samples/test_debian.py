"""Folders of Debian packages, and the parts that are chosen of one."""

import subprocess

import pytest

from maskstream.samples import debian
from maskstream.samples.points import sample_points as bricks
from maskstream.shards.errors import DatasetError

PART = "0 {}\n0 Name: x\n0 BFC CERTIFY\n3 16 0 0 0 1 0 0 0 1 0\n"


def put(path, title):
    path.write_text(PART.format(title))


def test_plain_parts_are_chosen_by_category(tmp_path, monkeypatch):
    monkeypatch.setattr(bricks, "CATEGORIES", ("Brick", "Minifig Headwear"))
    monkeypatch.setattr(bricks, "PARTS", {"train": 3, "val": 1})
    parts = tmp_path / "ldraw-parts-free" / "parts"
    parts.mkdir(parents=True)
    for number in range(6):
        put(parts / f"{number}.dat", "Brick 1 x 1")
        put(parts / f"{10 + number}.dat", "Hat\n0 !CATEGORY Minifig Headwear")
    for name, title in (("20.dat", "~Brick"), ("21.dat", "Brick with Pattern"), ("22p1.dat", "Brick"), ("23.dat", "")):
        put(parts / name, title)
    wanted = bricks.CATEGORIES, bricks.read_ldraw_surface, "sample-points"
    chosen = bricks._parts(debian.fetch_debian_folder("ldraw-parts-free", "usr/share/ldraw", tmp_path), *wanted)
    assert {split: len(sources) for split, sources in chosen.items()} == {"train": 6, "val": 2}
    assert {int(s.path.stem) // 10 for s in chosen["train"]} == {0, 1}
    assert all(int(s.path.stem) // 10 == s.label for sources in chosen.values() for s in sources)
    with pytest.raises(DatasetError, match="0 parts in the category 'Brick'"):
        bricks._parts(tmp_path / "ldraw-parts-free" / "nothing", *wanted)


def test_a_package_that_apt_cannot_get_is_said(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 100, stdout="", stderr="E: Unable to locate package nope\n")
    monkeypatch.setattr(debian.shutil, "which", lambda name: name)
    monkeypatch.setattr(debian.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(DatasetError, match=r"Unable to locate package nope.*Check the network"):
        debian.fetch_debian_folder("nope", "usr", tmp_path)
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(DatasetError, match="without apt-get"):
        debian.fetch_debian_folder("nope", "usr", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_lists_of_packages_gets_them_for_one_download(tmp_path, monkeypatch):
    asked = []

    def run(command, cwd, **options):
        asked.append(command)
        own = any(word.startswith("Dir::State::Lists=") for word in command)
        if command[:2] == ["apt-get", "download"] and own:
            assert (cwd / "lists" / "partial").is_dir()
            (cwd / "some.deb").write_bytes(b"")
        if command[0] == "dpkg-deb":
            (cwd / "content" / "usr").mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0 if own or command[0] == "dpkg-deb" else 100, "", "E: no lists")

    monkeypatch.setattr(debian.shutil, "which", lambda name: name)
    monkeypatch.setattr(debian.subprocess, "run", run)
    assert debian.fetch_debian_folder("some", "usr", tmp_path) == tmp_path / "some"
    assert [command[:2] for command in asked[:3]] == [["apt-get", name] for name in ("download", "update", "download")]
    assert [path.name for path in tmp_path.iterdir()] == ["some"]
