"""Raw data at a URL become the shards that they become on a disk, whatever happens to the server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import DATASETS, Limits
from maskstream.preprocess.datasets.dataset import declared
from maskstream.preprocess.job.shards import find_dataset
from maskstream.preprocess.raw.scratch import Scratch
from maskstream.preprocess.raw.tree import open_raw_tree
from maskstream.preprocess.raw.url import FILE_LIST, listed
from maskstream.shards.errors import DatasetError, OutageError, ResumeError
from maskstream.shards.stores import client

from ...web_server import serving
from ..job.test_job import contents, run

LIMITS = Limits(frame_pixels=64 * 48)


@pytest.fixture(autouse=True)
def patience(monkeypatch, tmp_path):
    """A server that is away is given up soon, and temporary folders are seen."""
    monkeypatch.setattr(client, "MAX_RETRIES", 1)
    monkeypatch.setattr(client, "LEAST_PAUSE_S", 0.01)
    client._made.cache_clear()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield temporary
    assert list(temporary.glob("maskstream-raw-*")) == []
    client._made.cache_clear()


@pytest.fixture
def raw(make_video, tmp_path):
    """Videos in two classes, named as files may be, with a text, an empty file and a video that is too large."""
    for number, name in enumerate(["one", "two words", "ü", "50%", "a#b", "q?x=1", "seven", "eight"]):
        make_video(f"raw/train/{'ab'[number % 2]}/{name}.mp4", 4 + number)
    for number in range(2):
        make_video(f"raw/val/a/clip {number}.mkv", 5)
    make_video("raw/train/b/large.mp4", 4, width=128)
    (tmp_path / "raw/train/a/text.mp4").write_text("not a video")
    (tmp_path / "raw/train/b/empty.mp4").touch()
    list_files(tmp_path / "raw")
    return tmp_path / "raw"


def list_files(raw):
    """Write the list of files that a web server needs; also make the files old."""
    names = [path.relative_to(raw).as_posix() for path in sorted(raw.rglob("*")) if path.is_file()]
    (raw / FILE_LIST).write_text("\n".join(name for name in names if name != FILE_LIST) + "\n")
    for name in names:
        os.utime(raw / name, (1_700_000_000, 1_700_000_000))


@pytest.fixture
def server(raw):
    with serving(raw) as server:
        yield server


@pytest.fixture
def whole(raw, tmp_path):
    """What the folder becomes."""
    run(raw, tmp_path / "local", limits=LIMITS)
    return contents(tmp_path / "local")


def fetched(server):
    """How often each file was fetched since the last call."""
    names = [request.name for request in server.requests if request.method == "GET" and request.name != FILE_LIST]
    server.requests.clear()
    return {name: names.count(name) for name in names}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_bytes_are_those_of_the_folder(raw, server, whole, tmp_path, workers):
    out = tmp_path / "remote"
    report = run(f"{server.url}/", out, limits=LIMITS, workers=workers)
    assert contents(out) == whole
    assert report.splits["train"].counts["rejected"] == {"open": 2, "check": 1}
    counts = fetched(server)
    good = {name for name in counts if not re.search("text|empty|large", name)}
    assert len(good) == 10
    assert {counts[name] for name in good} == {1}
    assert {counts[name] for name in counts.keys() - good} == {3}  # read again before they are rejected
    assert run(server.url, out, limits=LIMITS, workers=workers).n_sources == 0
    assert fetched(server) == {}  # the listing says that nothing has changed


def test_lists_are_fetched_and_media_are_not(raw, server, tmp_path):
    (raw / "list.csv").write_text("path,label\ntrain/a/one.mp4,x\ntrain/b/two words.mp4,y\nnone.mp4,x\n")
    list_files(raw)
    with open_raw_tree(server.url) as tree:
        dataset = find_dataset(tree, DATASETS["folder"])
        assert [source.id for source in dataset.splits["train"]] == ["train/a/one.mp4", "train/b/two words.mp4"]
        assert [reject.reason for reject in dataset.missing["train"]] == ["there is no file none.mp4"]
        assert fetched(server) == {"list.csv": 1}
        path = tree.folder / "train/a/one.mp4"
        assert (path.stat().st_size, path.stat().st_mtime) == ((raw / "train/a/one.mp4").stat().st_size, 1_700_000_000)
        assert path.stat().st_blocks == 0
    run(server.url, tmp_path / "remote")
    run(raw, tmp_path / "local")
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def test_lists_in_parquet_are_fetched_and_media_in_parquet_are_not(raw, server):
    for folder in ("", "train/", "shards/"):
        (raw / folder).mkdir(exist_ok=True)
        pq.write_table(pa.table({"path": ["train/a/one.mp4"], "caption": ["x"]}), raw / folder / "list.parquet")
    list_files(raw)
    function = DATASETS["folder"]
    with open_raw_tree(server.url, lists=declared(function).in_archives or ()) as tree:
        (source,) = find_dataset(tree, function).splits["train"]
        assert (source.id, source.meta) == ("train/a/one.mp4", {"caption": "x"})
        assert fetched(server) == {"list.parquet": 1}
    with (
        open_raw_tree(server.url) as tree,
        pytest.raises(DatasetError, match=r"list.parquet begins with zeros: it is dam"),
    ):
        find_dataset(tree, function)


def test_an_outage_is_no_reject_and_the_run_continues(raw, server, whole, tmp_path):
    out = tmp_path / "remote"
    away = {"train/a/ü.mp4": 503}
    server.answer = lambda request, body: away.get(request.name, body) if request.method == "GET" else body
    with pytest.raises(OutageError, match=r"ü\.mp4.* cannot be reached"):
        run(server.url, out, limits=LIMITS, pauses_s=(0.01,))
    before = fetched(server)
    server.answer = lambda request, body: body
    run(server.url, out, limits=LIMITS)
    after = fetched(server)
    assert contents(out) == whole
    assert any(name in before and name not in after for name in before)  # shards that were written stay


def test_a_file_that_is_cut_off_on_its_way_is_read_again(raw, server, whole, tmp_path):
    left = {"train/a/one.mp4": 3, "train/b/eight.mp4": 1, "val/a/clip 1.mkv": 1}

    def answer(request, body):
        if request.method == "GET" and left.get(request.name):
            left[request.name] -= 1
            return 0
        return body

    server.answer = answer
    run(server.url, tmp_path / "remote", limits=LIMITS, pauses_s=(0.01, 0.01))
    assert not any(left.values())
    assert contents(tmp_path / "remote") == whole


def test_an_answer_that_says_a_wrong_length_is_asked_for_again(raw, server, whole, tmp_path):
    """Part of a file, under the length of the part: as if the file were shorter."""
    left = {"train/a/one.mp4": 1, "train/b/two words.mp4": 2, "val/a/clip 0.mkv": 1}

    def answer(request, body):
        if request.method == "GET" and left.get(request.name):
            left[request.name] -= 1
            return body[: len(body) // 2]
        return body

    server.answer = answer
    run(server.url, tmp_path / "remote", limits=LIMITS, pauses_s=())
    assert not any(left.values())
    assert contents(tmp_path / "remote") == whole


def test_a_file_that_is_gone_or_changes_while_it_is_judged_is_an_outage(raw, server, tmp_path):
    bodies = iter([b"not a video", b"nor is this"] * 10)
    server.answer = lambda request, body: (
        next(bodies) if (request.method, request.name) == ("GET", "train/a/text.mp4") else body
    )
    with pytest.raises(OutageError, match="changed while it was read"):
        run(server.url, tmp_path / "changing", pauses_s=())
    server.answer = lambda request, body: 404 if (request.method, request.name) == ("GET", "train/a/text.mp4") else body
    with pytest.raises(OutageError, match="although it was listed"):
        run(server.url, tmp_path / "gone", pauses_s=())


def test_a_changed_source_is_refused_and_a_newer_one_is_not(raw, server, tmp_path):
    out = tmp_path / "remote"
    run(server.url, out)
    path = raw / "train/a/one.mp4"
    data = path.read_bytes()
    os.utime(path, (1_800_000_000, 1_800_000_000))
    fetched(server)
    assert run(server.url, out).n_sources == 0
    assert fetched(server) == {"train/a/one.mp4": 1}  # its bytes are compared
    path.write_bytes(bytes(len(data)))
    with pytest.raises(ResumeError, match=r"1 of 11 sources changed .*'train/a/one.mp4'"):
        run(server.url, out)


def test_what_cannot_be_listed_is_refused(raw, server, tmp_path):
    (raw / FILE_LIST).unlink()
    with pytest.raises(DatasetError, match="cannot list its files; put a list there"):
        run(server.url, tmp_path / "out")
    (raw / FILE_LIST).write_text("../secret.mp4\n")
    with pytest.raises(DatasetError, match="secret"):
        run(server.url, tmp_path / "out")
    list_files(raw)
    with (
        open_raw_tree(server.url) as tree,
        pytest.raises(DatasetError, match="las reads its files to list its sources; copy http"),
    ):
        find_dataset(tree, DATASETS["las"])
    (raw / FILE_LIST).write_text("")
    with pytest.raises(DatasetError) as caught:
        run(server.url, tmp_path / "out")
    assert server.url in str(caught.value)
    assert "maskstream-raw" not in str(caught.value)
    with pytest.raises(ValueError, match="expected a local path or a URL"):
        run("ftp://host/raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_file(raw, server, whole, tmp_path, patience):
    """SIGKILL at any moment: its temporary folders are deleted by the next run, which writes the same bytes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.preprocess.job.test_job import run\n"
        "from tests.preprocess.raw.test_files import LIMITS\n"
        "if __name__ == '__main__':\n    run(sys.argv[1], Path(sys.argv[2]), limits=LIMITS, workers=2)\n"
    )
    root = Path(__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    out = tmp_path / "remote"
    server.answer = lambda request, body: (time.sleep(0.2), body)[1] if request.method == "GET" else body
    killed = subprocess.Popen([sys.executable, script, server.url, out], env=env, stdout=subprocess.PIPE)
    while (
        not any(request.method == "GET" and request.name != FILE_LIST for request in server.requests)
        or len(list(patience.glob("maskstream-raw-*"))) < 2
    ):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.communicate()[0] == b""  # ends when its workers do, which have it open too
    assert killed.returncode == -signal.SIGKILL
    server.answer = lambda request, body: body
    run(server.url, out, limits=LIMITS)
    assert contents(out) == whole
    assert list(patience.glob("maskstream-raw-*")) == []


def test_a_folder_in_use_stays_and_one_that_is_left_does_not(patience):
    mine = Scratch()
    (mine.folder / "file").write_text("kept")
    killed = "import os, maskstream.preprocess.raw.scratch as s; x = s.Scratch(); (x.folder / 'x').mkdir(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert len(list(patience.glob("maskstream-raw-*"))) == 2
    others = Scratch()
    assert {folder / "files" for folder in patience.glob("maskstream-raw-*")} == {mine.folder, others.folder}
    assert (mine.folder / "file").read_text() == "kept"
    mine.close()
    mine.close()
    assert not mine.folder.exists()
    folder = others.folder
    del others
    assert not folder.exists()


def test_a_folder_that_was_not_made_here_stays_whatever_it_is_called(patience, tmp_path):
    own, copied, link = (patience / f"maskstream-raw-{name}" for name in ("k400", "copied", "link"))
    (own / "files").mkdir(parents=True)
    (own / "files" / "thesis.txt").write_text("precious")
    left = subprocess.run(
        [sys.executable, "-c", "import maskstream.preprocess.raw.scratch as s, os; x = s.Scratch(); os._exit(9)"],
        check=False,
    )
    assert left.returncode == 9
    (made,) = set(patience.glob("maskstream-raw-*")) - {own}
    shutil.copytree(made, copied)  # with a mark that is another folder's
    link.symlink_to(own)
    Scratch().close()
    assert not made.exists()
    assert (own / "files" / "thesis.txt").read_text() == "precious"
    assert copied.exists()
    link.unlink()
    for folder in (own, copied):
        shutil.rmtree(folder)


@pytest.mark.parametrize("row", ["../victim.png", "train/../../victim.png", "{victim}"])
def test_a_list_at_a_url_deletes_and_reads_no_file_here(raw, server, tmp_path, row):
    victim = tmp_path / "victim.png"
    victim.write_text("precious")
    named = row.format(victim=victim)
    (raw / "list.csv").write_text(f"path,label\ntrain/a/one.mp4,x\n{named},y\n")
    list_files(raw)
    with pytest.raises(DatasetError, match=r"1 source files are not below .*Remove them from the list|missing"):
        run(server.url, tmp_path / "out", max_rejects=0)
    assert victim.read_text() == "precious"


def test_files_are_listed_with_their_sizes_and_ages(raw, server):
    found = {file.name: file for file in listed(server.url)}
    assert found.keys() == {path.relative_to(raw).as_posix() for path in raw.rglob("*.m*")}
    assert {file.mtime_ns for file in found.values()} == {1_700_000_000 * 10**9}
    assert all(file.size_bytes == (raw / name).stat().st_size for name, file in found.items())
