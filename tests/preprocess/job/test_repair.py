"""What is damaged is written again, to the bytes that it had, or the run says what it cannot repair."""

import os
import shutil

import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.job.verification import RepairReport, repair_split
from maskstream.shards.errors import ResumeError, ShardError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.rejects import read_rejects
from maskstream.shards.format.verify import verify
from maskstream.shards.stores.local import LocalStore

from ...attacks.shard_kills import N_IMAGES, contents, pictures
from ...cli.test_cli import run as cli
from ...damaged_files import flip
from .folder_job import Told
from .picture_job import run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    pictures(folder / "raw", 0)
    run(folder / "raw", folder / "out")
    return folder


@pytest.fixture
def raw(made):
    return made / "raw"


@pytest.fixture
def out(made, tmp_path):
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def test_a_whole_split_is_left(raw, out):
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (out / "train").glob("*.tar")}
    told = Told()
    report = run(raw, out, repair=True, progress=told)
    assert (report.n_sources, report.splits["train"].state) == (0, "continued")
    assert [phase for phase in told.phases if phase[0] == "encode"] == []
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before


def test_everything_is_damaged_in_some_way(raw, out, made):
    train = out / "train"
    tars = sorted(train.glob("*.tar"))
    flip(tars[0])
    tars[1].unlink()
    tars[2].write_bytes(tars[2].read_bytes()[:-512])
    flip(tars[3].with_suffix(".idx"))
    tars[4].with_suffix(".sums").unlink()
    for path in train.glob("*.parquet"):
        flip(path)
    told = Told()
    assert run(raw, out, repair=True, progress=told).n_sources == 3 * 3
    assert ("encode", N_IMAGES, N_IMAGES - 9) in told.phases
    assert contents(out) == contents(made / "out")
    assert verify(train, decode=True).ok
    assert run(raw, out).splits["train"].state == "already finished"


def test_without_repair_damage_within_a_tar_of_the_right_size_is_not_looked_for(raw, out):
    flip(next((out / "train").glob("*.tar")))
    assert run(raw, out).splits["train"].state == "already finished"


def test_a_source_that_changed_cannot_replace(raw, out, tmp_path):
    """Where nobody noticed it: with the same size and time. The split stays readable as it was."""
    own = tmp_path / "raw"
    shutil.copytree(raw, own)
    tar = sorted((out / "train").glob("*.tar"))[0]
    flip(tar)
    before = contents(out)
    for path in own.rglob("*.png"):
        status, data = path.stat(), bytearray(path.read_bytes())
        if len(data) > 3000:
            data[-20] ^= 1  # its last chunk
            path.write_bytes(data)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ShardError, match=r"(cannot be replaced|was not replaced)"):
        run(own, out, repair=True)
    assert contents(out) == before
    assert (out / "train/dataset.json").exists()


def test_a_source_that_is_seen_to_have_changed_is_refused(raw, out, tmp_path):
    own = tmp_path / "raw"
    shutil.copytree(raw, own)
    flip(next((out / "train").glob("*.tar")))
    for path in own.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ResumeError, match="sources changed"):
        run(own, out, repair=True)
    assert (out / "train/dataset.json").exists()


def test_repair_goes_with_nothing_that_changes_bytes(raw, out):
    for settings in ({"overwrite": True}, {"retry_rejects": True}, {"part": (1, 2)}, {"finish": True}):
        with pytest.raises(ValueError, match="repair"):
            run(raw, out, repair=True, **settings)


def test_what_lies_beside_the_tars_is_repaired_without_sources(out, made):
    train = out / "train"
    tars = sorted(train.glob("*.tar"))
    flip(tars[3].with_suffix(".idx"))
    tars[4].with_suffix(".sums").unlink()
    report = repair_split(train)
    assert report == RepairReport([tars[3].with_suffix(".idx").name, tars[4].with_suffix(".sums").name], [])
    assert contents(out) == contents(made / "out")
    assert repair_split(train) == RepairReport()


@pytest.mark.parametrize("lost", ["dataset.json", "*.parquet", "rejects.parquet"])
def test_the_index_is_written_again_from_the_records(out, made, lost):
    for path in (out / "train").glob(lost):
        path.unlink()
    report = repair_split(out / "train")
    assert report.beyond == []
    assert len(report.repaired) == 1
    assert contents(out) == contents(made / "out")


def test_without_records_the_manifest_tells_what_lies_beside_the_tars(out, made):
    shutil.rmtree(out / "train/.records")
    tar = sorted((out / "train").glob("*.tar"))[2]
    flip(tar.with_suffix(".idx"))
    tar.with_suffix(".sums").write_bytes(b"")
    assert repair_split(out / "train").repaired == [tar.with_suffix(".idx").name, tar.with_suffix(".sums").name]
    assert contents(out) == contents(made / "out")
    flip(out / "train/dataset.json")
    [problem] = repair_split(out / "train").beyond
    assert "has no description of it; run the same `maskstream shards` again" in problem


def test_what_needs_sources_is_named_and_left(out):
    train = out / "train"
    tar = sorted(train.glob("*.tar"))[1]
    flip(tar)
    before = contents(out)
    [problem] = repair_split(train).beyond
    assert problem.startswith(f"{tar.name} is missing, or its bytes have changed")
    assert "--repair` encodes it again" in problem
    (train / "dataset.json").unlink()
    _, second = repair_split(train).beyond
    assert "it can be rewritten once all of its 6 shards and records are intact" in second
    (train / "dataset.json").touch()
    assert {name: before[name] for name in before if name != "train/dataset.json"}.items() <= contents(out).items()


def test_missing_sources_stay_in_the_rejects(make_video, tmp_path):
    make_video("raw/x.mp4", 4)
    (tmp_path / "raw/videos.csv").write_text("path\nx.mp4\ny.mp4\n")
    make_shards("folder", tmp_path / "raw", tmp_path / "out", workers=0, max_rejects=1)
    [split] = [path.parent for path in (tmp_path / "out").glob("*/dataset.json")]
    before = contents(split)
    for path in (split / "dataset.json", *split.glob("*.parquet")):
        path.unlink()
    assert repair_split(split).beyond == []
    assert contents(split) == before
    assert [reject.stage for reject in read_rejects(LocalStore(split), read_dataset_json(split))] == ["missing"]


def test_the_command_repairs_and_then_verifies(out, monkeypatch, capsys):
    tar = sorted((out / "train").glob("*.tar"))[0]
    tar.with_suffix(".sums").unlink()
    assert cli(monkeypatch, "verify", out / "train") == 1
    assert cli(monkeypatch, "verify", out / "train", "--repair") == 0
    assert f"repaired {tar.with_suffix('.sums').name}" in capsys.readouterr().out
    flip(tar)
    assert cli(monkeypatch, "verify", out / "train", "--repair") == 1
    assert "not repaired" in capsys.readouterr().err
