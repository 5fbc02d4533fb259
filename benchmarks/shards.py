"""CPU time of making shards, over that of ffmpeg with the same x264 options, and over the way it was done before.

    python benchmarks/shards.py --clips 100 --clips-1080p 20 --out runs/bench/shards.json

One process encodes the clips as `maskstream shards` does (read, encode, check, write a tar), in turns with ffmpeg on
the same clip; so start-up is apart, and a busy machine slows all alike. ffmpeg converts as we do, scaling and then
BT.709 to BT.601, for by itself it would leave the matrix. Its CPU time is taken from the system, without that of an
ffmpeg that does nothing. "before" is our own code without what is compared: one `scale` that also converts, two decodes
for `copy`. Printed are medians over the clips, and of the ratios of each clip, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import clips
import machine
from turns import quartiles

from maskstream.preprocess.encode.video import convert, video
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.encode.video.video import _x264_options
from maskstream.preprocess.job.plan import ShardTask
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.job.task import write_task
from maskstream.preprocess.source import Source

SMALL = clips.Form()
LARGE = clips.Form(files=5, width=1920, height=1080, preset="veryfast")
TRAIN = PROFILES["train"]
START_UP = "import maskstream.preprocess.job.task"


def children_s() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_s(command: list[str]) -> float:
    """CPU seconds of a command."""
    before = children_s()
    subprocess.run(command, check=True, capture_output=True)
    return children_s() - before


def ours_s(path: Path, profile: str, folder: Path) -> float:
    """CPU seconds of a shard of one clip."""
    source = Source(id=path.stem, path=path)
    task = ShardTask(path=folder / "ours-000000.tar", sources=(source,), encoder=VideoEncoder(PROFILES[profile]))
    before = time.process_time()
    made = write_task(task, lambda note: None)
    used = time.process_time() - before
    if made.rejects:
        raise SystemExit(f"{path}: {made.rejects}")
    return used


def ffmpeg_command(path: Path, profile: str, folder: Path, form: clips.Form) -> list[str]:
    """ffmpeg on a clip, with one thread each, into fragmented MP4."""
    command = ["ffmpeg", "-y", "-loglevel", "error", "-threads", "1", "-filter_threads", "1", "-i", str(path), "-an"]
    flags = ["-movflags", "frag_keyframe+empty_moov+default_base_moof", str(folder / "ffmpeg.mp4")]
    if profile == "copy":
        return [*command, "-c:v", "copy", *flags]
    fit = convert.fitted(form.width, form.height, TRAIN.short_side)
    steps = [f"{name}={arguments}" for name, arguments in fit.crop]
    if form is LARGE:
        width, height = fit.scaled
        same = f"in_color_matrix=bt709:out_color_matrix=bt709:{convert._SCALER}"
        scaled = [f"scale={width}:{height}:{same}", "format=yuv420p", f"colorspace={convert._matrix_only('bt709')}"]
        steps = [*scaled, *steps]
    filters = ["-vf", ",".join(steps)] if steps else []
    options = [word for name, value in _x264_options(TRAIN).items() for word in (f"-{name}", value)]
    return [*command, *filters, "-c:v", "libx264", "-threads", "1", *options, *flags]


@contextmanager
def before(profile: str) -> Iterator[None]:
    """Our code as it was."""
    if profile == "copy":
        with mock.patch.object(video, "restarts_at_keyframes", return_value=False):
            yield
    else:
        with mock.patch.object(convert, "_COLORSPACES", {}):
            yield


def old_s(path: Path, profile: str, folder: Path) -> float:
    """CPU seconds of a shard of one clip, made as before."""
    with before(profile):
        return ours_s(path, profile, folder)


def measured(files: list[Path], n: int, profile: str, form: clips.Form, folder: Path, idle_s: float) -> dict[str, Any]:
    """CPU seconds a clip of each way, over n clips in turns; a file comes more than once if there are fewer."""
    ways: dict[str, Callable[[Path], float]] = {"ours": lambda path: ours_s(path, profile, folder)}
    if profile == "copy" or form is LARGE:
        ways["before"] = lambda path: old_s(path, profile, folder)
    if shutil.which("ffmpeg"):
        ways["ffmpeg"] = lambda path: run_s(ffmpeg_command(path, profile, folder, form)) - idle_s
    used: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(n):
        for name in list(ways)[:: 1 if k % 2 else -1]:
            used[name].append(ways[name](files[k % len(files)]))
    ratios = {name: [a / b for a, b in zip(used["ours"], used[name], strict=True)] for name in ways if name != "ours"}
    return {
        "clips": n,
        "files": min(n, len(files)),
        "cpu_s": {name: round(median(values), 4) for name, values in used.items()},
        "over": {name: [round(q, 3) for q in quartiles(values)] for name, values in ratios.items()},
    }


def two_over_one(found: Path, folder: Path, rounds: int) -> list[float]:
    """Wall time of one worker over that of two, for the same folder, in turns."""
    ratios = []
    for n in range(rounds):
        walls = {}
        for workers in (1, 2) if n % 2 else (2, 1):
            out = folder / f"workers{workers}"
            walls[workers] = make_shards(
                "folder", found, out, profile=TRAIN, workers=workers, samples_per_shard=5, as_is=True, overwrite=True
            ).wall_s
        ratios.append(round(walls[1] / walls[2], 3))
    return ratios


def found_files(folder: Path, media: Path, form: clips.Form) -> list[Path]:
    """The clips in a form, made once."""
    done, settings = folder / clips.DONE, repr(form)
    if not done.exists() or done.read_text() != settings:
        folder.mkdir(parents=True, exist_ok=True)
        clips._write_found(folder, media, form)
        done.write_text(settings)
    return sorted(folder.glob("*.mp4"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clips", type=int, default=100, help="how many clips of 340 x 256")
    parser.add_argument("--clips-1080p", type=int, default=100, help="how many clips of 1920 x 1080")
    parser.add_argument("--workers-rounds", type=int, default=0, help="rounds of two workers against one")
    parser.add_argument("--media", type=Path, default=Path("data/raw/sample"), help="the sample dataset")
    parser.add_argument("--data", type=Path, default=Path("runs/bench/shards"), help="where the clips are kept")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/shards.json"))
    arguments = parser.parse_args()
    small = found_files(arguments.data / "small", arguments.media, SMALL)
    large = found_files(arguments.data / "1080p", arguments.media, replace(LARGE)) if arguments.clips_1080p else []
    idle = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "nullsrc=s=16x16:d=0.04", "-f", "null", "-"]
    idle_s = median(run_s(idle) for _ in range(7)) if shutil.which("ffmpeg") else 0.0
    rows: dict[str, Any] = {
        "start_up_cpu_s": round(median(run_s([sys.executable, "-c", START_UP]) for _ in range(5)), 2),
        "ffmpeg_start_up_cpu_s": round(idle_s, 3),
    }
    with TemporaryDirectory(dir=arguments.data) as name:
        for files, n, form, label in (
            (small, arguments.clips, SMALL, "340x256"),
            (large, arguments.clips_1080p, LARGE, "1080p"),
        ):
            for profile in ("copy", "train") if n else ():
                rows[f"{label} {profile}"] = measured(files, n, profile, form, Path(name), idle_s)
                print(label, profile, json.dumps(rows[f"{label} {profile}"]), flush=True)
        if arguments.workers_rounds:
            rows["one worker / two"] = two_over_one(arguments.data / "small", Path(name), arguments.workers_rounds)
    facts = machine.facts(("av", "numpy", "maskstream"))
    arguments.out.write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
    print(json.dumps({"facts": facts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
