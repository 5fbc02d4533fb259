"""The command line: raw files to a verified split to a page, exit codes, and errors of one line."""

import errno
import json
import re
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from maskstream.cli import app, main
from maskstream.shards.stores.local_files import publishing

from ..damaged_files import flip
from ..pipelines.every_modality import write_split
from ..videos import write_frames
from ..web_server import serving


def run(monkeypatch, *words):
    """The exit code of `maskstream words`."""
    monkeypatch.setattr("sys.argv", ["maskstream", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def write_video(path, *, frames, width=96, height=64):
    picture = np.random.default_rng(frames).integers(0, 255, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    moved, pixels = (np.roll(picture, 2 * i, 1) for i in range(frames)), "yuv420p" if width > 1 else "yuv444p"
    return write_frames(path, moved, pixels=pixels, options={"preset": "ultrafast"})


def write_bad_files(folder):
    """Five files that cannot be used, and how each is spoken of."""
    whole = write_video(folder / "whole.mp4", frames=60).read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    write_video(folder / "onepixel.mp4", frames=40, width=1, height=1)
    (folder / "empty.mp4").write_bytes(b"")
    with av.open(str(folder / "noframes.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    return {"truncated", "text", "onepixel", "empty", "noframes"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A raw folder of two classes with good, short and bad files, through `maskstream shards folder`."""
    root, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("out")
    for i in range(3):
        write_video(root / "wave" / f"w{i}.mp4", frames=70 + i)
    write_video(root / "jump" / "short.mp4", frames=9)
    bad = write_bad_files(root / "jump")
    with pytest.MonkeyPatch.context() as patch:
        code = run(
            patch, "shards", "folder", "--root", root, "--out", out, "--workers", 1, "--max-rejects", 1, "--json"
        )
    assert code == 0
    return root, out, bad


def test_bad_files_are_named_with_reasons_and_the_rest_becomes_samples(shards):
    _, out, bad = shards
    rejects = pq.read_table(out / "train" / "rejects.parquet").to_pylist()
    assert (
        {next(name for name in bad if name in row["source"]) for row in rejects}
        == bad
        == {name for row in rejects for name in bad if name in row["source"]}
    )
    assert all(row["stage"] and len(row["reason"]) > 5 for row in rejects)
    assert json.loads((out / "train" / "dataset.json").read_text())["counts"]["samples"] == 4


def test_a_clip_shorter_than_the_span_is_loaded_with_its_last_frame_repeated(shards):
    from maskstream.pipelines import VideoClip, masks, video_loader

    _, out, _ = shards
    loader = video_loader(
        out / "train",
        clip=VideoClip(frames=8, stride=4, size=32),
        mask=masks.MotionGuided(),
        batch_size=4,
        shuffle=False,
    )
    batch = next(iter(loader))
    at = next(i for i, key in enumerate(batch.key) if "short" in key)
    assert np.allclose(batch.pts_s[at].numpy() * 30, [0, 4, 8, 8, 8, 8, 8, 8])
    assert (batch.video[at, 2] == batch.video[at, 7]).all()


def test_shards_shows_a_bar_and_tells_facts(monkeypatch, capfd, shards, tmp_path):
    root, _, bad = shards
    words = ["shards", "folder", "--root", root, "--out", tmp_path / "out", "--profile", "fps", "--workers", 1]
    assert run(monkeypatch, *words) == 1
    said = " ".join(capfd.readouterr().err.split())
    assert "encode" in said
    assert f"encode: {4 + len(bad)} of {4 + len(bad)} sources" in said
    assert f"{len(bad)} of {4 + len(bad)} sources" in said
    assert "--max-rejects 0.56" in said
    words += ["--max-rejects", 0.56]
    assert run(monkeypatch, *words) == 0
    captured = capfd.readouterr()
    assert "samples 4" in captured.out
    assert run(monkeypatch, *words, "--json") == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["train"]["samples"] == 4


def test_a_finished_split_is_not_made_again(monkeypatch, capsys, shards):
    root, out, _ = shards
    before = (out / "train" / "dataset.json").stat().st_mtime_ns
    assert run(monkeypatch, "shards", "folder", "--root", root, "--out", out, "--max-rejects", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["state"] == "already finished"
    assert run(monkeypatch, "shards", "folder", "--root", root, "--out", out, "--max-rejects", 1) == 0
    captured = capsys.readouterr()
    assert captured.err == f"reading {root}\n"
    assert "already finished" in captured.out
    assert (out / "train" / "dataset.json").stat().st_mtime_ns == before


def test_verify_and_inspect_say_what_is_there_and_verify_fails_on_damage(monkeypatch, capsys, shards, tmp_path):
    import shutil

    _, out, _ = shards
    assert run(monkeypatch, "verify", out / "train", "--decode", "--json") == 0
    assert json.loads(capsys.readouterr().out) | {"size_bytes": 0} == {
        "samples": 4, "shards": 1, "size_bytes": 0, "problems": [], "unchecked": [], "ok": True
    }  # fmt: skip
    assert run(monkeypatch, "verify", out / "train") == 0
    assert f"{out / 'train'}: 4 samples in 1 shard, " in capsys.readouterr().out
    assert run(monkeypatch, "inspect", out / "train", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["samples"] == 4
    assert run(monkeypatch, "inspect", out / "train") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) == 2 and "{" not in line[1] for line in lines)
    assert lines[0] == ["name", f"{out.name}/train"]
    assert ["split", "train"] in lines
    broken = shutil.copytree(out / "train", tmp_path / "broken")
    tar = next(broken.glob("*.tar"))
    flip(tar)
    assert run(monkeypatch, "verify", broken) == 1
    captured = capsys.readouterr()
    assert "problem" in captured.err
    assert tar.name in captured.err


def test_preview_writes_a_page(monkeypatch, capsys, shards, tmp_path):
    _, out, _ = shards
    page = tmp_path / "page.html"
    words = ["--mask", "tube", "--frames", 4, "--size", 32, "--clips", 2, "--set", "ratio=0.75", "--out", page]
    assert run(monkeypatch, "preview", out / "train", *words) == 0
    assert "Tube(ratio=0.75" in page.read_text()


def test_preview_and_bench_open_what_the_shards_hold(monkeypatch, capsys, tmp_path):
    folder = write_split("points", tmp_path)
    page = tmp_path / "page.html"
    assert run(monkeypatch, "preview", folder, "--set", "points=50", "--samples", 2, "--views", 2, "--out", page) == 0
    assert "50 points of the" in page.read_text()
    assert page.read_text().count("<article") == 4
    assert run(monkeypatch, "bench", folder, "--set", "points=50", "--seconds", 0.02, "--batch-size", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unit"] == "clouds"


@pytest.mark.parametrize("command", ["preview", "bench"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mask", "all"], "--mask 'all' is not a mask; choose from none, audio-mae,"),
        (
            ["--mask", "fastdit-3d"],
            "'fastdit-3d' cannot be drawn on the tokens of video, which have no occupied (their cues: ",
        ),
        (["--mask", "audio_mask=mae"], "video has the mask fields mask, got 'audio_mask'"),
        (["--mask", "none", "--set", "mask.ratio=0.5"], "there is no field 'mask.ratio' to set"),
        (["--set", "points=9"], "there is no field 'points' to set; these shards hold video"),
        (["--set", "ratio=1.5"], "1.5"),
        (["--size", "100"], "100"),
    ],
)
def test_what_does_not_suit_the_shards_is_refused(monkeypatch, capsys, shards, command, words, says):
    _, out, _ = shards
    assert run(monkeypatch, command, out / "train", *words) == 2
    captured = capsys.readouterr()
    assert says in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err


SMALL = ["--frames", 4, "--size", 32, "--batch-size", 2, "--seconds", 0.05, "--device", "cpu"]


def test_bench_says_where_the_time_goes_and_what_limits(monkeypatch, capsys, shards):
    _, out, _ = shards
    assert run(monkeypatch, "bench", out / "train", *SMALL, "--mask", "motion-guided", "--threads", 1, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] >= 2
    assert (result["modality"], result["unit"]) == ("video", "clips")
    assert {"read", "decode", "convert", "flow", "mask", "collate", "wait", "consumer"} <= set(result["stages"])
    assert result["stages"]["flow"]["cpu_ms"] > 0
    assert run(monkeypatch, "bench", out / "train", *SMALL, "--mask", "none") == 0
    shown = capsys.readouterr().out
    assert "consumer waits for data" in shown
    assert "clips/s" in shown
    assert shown.splitlines()[-1].endswith((".", ")"))


def test_bench_sweeps_over_threads_and_workers(monkeypatch, capsys, shards):
    _, out, _ = shards
    monkeypatch.setattr("maskstream.bench.candidates", lambda cores: [(0, 1), (0, 2)])
    assert run(monkeypatch, "bench", out / "train", *SMALL, "--sweep", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["best"] == result["tried"][0]
    assert {row["threads"] for row in result["tried"]} == {1, 2}
    assert run(monkeypatch, "bench", out / "train", *SMALL, "--sweep") == 0
    assert "Fastest here: workers=0, threads=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["shards", "nothing"], 2, "'nothing' is not a known dataset"),
        (["shards", "k400", "--root", "/nowhere"], 1, "the folder /nowhere does not exist"),
        (["shards", "sample", "--profile", "best"], 2, "--profile must be one of train, fast, copy, fps, got 'best'"),
        (["train", "videomae-huge", "--data", "x"], 2, "videomae-small"),
        (["verify", "/nowhere"], 1, "no folder /nowhere"),
        (["preview", "/nowhere"], 1, "no folder /nowhere"),
        (["bench", "/nowhere"], 1, "no folder /nowhere"),
        (["report", "/nowhere", "--data", "/nowhere"], 1, "no folder /nowhere"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(monkeypatch, capsys, words, code, says):
    assert run(monkeypatch, *words) == code
    captured = capsys.readouterr()
    assert says in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err


def test_help_and_version(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert run(monkeypatch, "shards", "--help") == 0
    shown = " ".join(re.sub("[│\n]", " ", capsys.readouterr().out).split())
    assert "rejects.parquet" in shown
    assert "0 works in this process [default: one per core]" in shown


def test_labels_and_names_of_data_do_not_reach_the_terminal_as_controls(monkeypatch, capfd, tmp_path):
    """A label, a source's name and a column, through every command that prints them."""
    evil = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\N{RIGHT-TO-LEFT OVERRIDE}"
    root, out = tmp_path / "raw", tmp_path / f"out{evil}"
    write_video(root / "good.mp4", frames=20)
    (root / f"bad{evil}.mp4").write_bytes(b"\0" * 100)
    (root / "list.csv").write_text(f'path,label\ngood.mp4,{evil.replace(chr(13), "")}\n"bad{evil}.mp4",x\n', newline="")
    made = ["shards", "folder", "--root", root, "--out", out, "--workers", 1]
    assert run(monkeypatch, *made, "--max-rejects", 1, "--as-is") == 0  # a label with ";" is a doubt
    run(monkeypatch, *made, "--samples-per-shard", 1, "--as-is")
    split = out / "train"
    run(monkeypatch, "inspect", split)
    run(monkeypatch, "verify", split)
    run(monkeypatch, "preview", split, "--out", tmp_path / f"page{evil}.html", "--samples", 1)
    (root / "list.csv").write_text(f"path{evil},label\nx,y\n", newline="")
    run(monkeypatch, "shards", "folder", "--root", root, "--out", out)
    run(monkeypatch, "inspect", split / evil)
    (split / "dataset.json").write_text("{}")
    run(monkeypatch, "verify", split)
    captured = capfd.readouterr()
    said = captured.out + captured.err
    assert "owned" in captured.out
    assert "owned" in captured.err
    assert not {"\x1b", "\x07", "\r", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}"} & set(said)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "videomae-tiny", "--out", "gs://bucket/x", "--data", "nowhere"),
        ("train", "videomae-tiny", "--initial", "https://host/x", "--data", "nowhere"),
        ("preview", "nowhere", "--out", "ftp://host/x.html"),
        ("report", "s3://bucket/x", "--data", "nowhere"),
        ("paper", "meshmask", "here", "s3://bucket/x", "--data", "nowhere"),
        ("gallery", "--out", "s3://bucket/x"),
    ],
)
def test_a_url_is_refused_before_any_work_where_none_is_served(words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    assert "expected a local path" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_commands_read_a_split_at_a_url(shards, monkeypatch, tmp_path, capsys):
    _, out, _ = shards
    answers = {}
    with serving(out) as server:
        for location in (out / "train", f"{server.url}/train"):
            found = []
            for words in (("verify", location, "--json"), ("inspect", location, "--json")):
                assert run(monkeypatch, *words) == 0
                found.append(capsys.readouterr().out)
            answers[location] = found
        page = tmp_path / "page.html"
        assert run(monkeypatch, "preview", f"{server.url}/train", "--out", page, "--samples", 2) == 0
        assert f"{server.url}/train" in page.read_text()
        words = ("--samples", 4, "--batch-size", 2, "--device", "cpu", "--json", "--threads", 1)
        assert run(monkeypatch, "bench", f"{server.url}/train", *words) == 0
        assert run(monkeypatch, "verify", f"{server.url}/val") == 1
    one, other = answers.values()
    assert one == other


def test_texts_that_are_alike_are_printed_once(monkeypatch, tmp_path):
    """At temperature 0 all are."""
    monkeypatch.setattr("maskstream.pages.generated.generated_texts", lambda *_, **__: ["one", "one", "two"])
    words = ["paper", "bert", "run", "--data", str(write_split("image", tmp_path)), "--temperature", "0"]
    assert CliRunner().invoke(app, words).stdout == "one\ntwo\n"
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout) == {"texts": ["one", "one", "two"]}


@pytest.mark.parametrize("command", ["embed run split --out f.parquet", "probe run --data split --test split"])
def test_a_device_that_is_not_there_is_one_line(command, monkeypatch, capsys):
    assert run(monkeypatch, *command.split(), "--device", "cuda:3") == 2
    assert "device='cuda:3': torch finds no CUDA device on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["train mae-tiny --data split --out run", "preview split", "finetune run --data a --test b"]
)
def test_a_seed_beyond_int64_is_one_line(command, monkeypatch, capsys):
    assert run(monkeypatch, *command.split(), "--seed", 10**23) == 2
    assert f"--seed {10**23} is out of range; pass a whole number from -2**63" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named_with_what_to_do(monkeypatch, tmp_path, capsys):
    split = write_split("image", tmp_path)
    (tmp_path / "file").touch()
    assert run(monkeypatch, "dataset-card", split, "--out", tmp_path / "file" / "cards") == 1
    said = rf"error {tmp_path}/file\S* cannot be opened \(.*\); .* a path in a writable folder"
    assert re.search(said, capsys.readouterr().err)


def test_an_output_in_a_folder_without_rights_is_named_as_it_was_given(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "hidden name")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError) as caught, publishing(tmp_path / "page.html"):
        pass
    assert caught.value.filename == str(tmp_path / "page.html")
