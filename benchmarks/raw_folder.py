"""What becomes of a long film and a folder of mixed files, some broken, in every way that a job may run.

    python benchmarks/raw_folder.py ROOT WORK [--minutes 120] [--files 200] [--kills 20] [--side 64] [--rate 12] [--ray]

WORK gets a film of scenes of the sample clips below ROOT, with known cuts, fades, black spans and flashes (scenes.py),
and short files of five containers and codecs, of which every eleventh is cut off, damaged, empty or no video. Jobs of
`maskstream shards folder --clips scenes` on them run alone, in four parts, killed at random moments and run again, and
on Ray. Printed are recall and precision of cuts, whether all wrote the same bytes, the rejects, and the most memory.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from scenes import CUT, FADE, FADE_IN, FADE_OUT, UInt8s, film, piece, read_scenes, told, write_film

from maskstream.preprocess.encode.video.scenes import find_scenes

FORMS = (
    ("mp4", "libx264", {"preset": "veryfast"}),
    ("mkv", "libx264", {"preset": "medium", "g": "48", "sc_threshold": "0"}),
    ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("avi", "mpeg4", {}),
    ("ts", "mpeg2video", {}),
)
"""Containers, codecs and their options."""
BREAKS = ("cut off", "damaged", "empty", "text")


def write_short(path: Path, codec: str, options: dict[str, str], frames: list[UInt8s]) -> None:
    """Write frames as a file, 25 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def break_file(path: Path, how: str) -> None:
    """Break a file in one of the ways of BREAKS."""
    data = bytearray(path.read_bytes())
    if how == "damaged":
        data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes({"cut off": data[: len(data) // 2], "empty": b"", "text": b"no video\n" * 99}.get(how, data))


def write_folder(raw: Path, scenes: list[list[UInt8s]], n_files: int) -> int:
    """Write the short files; returns how many are broken."""
    rng = np.random.default_rng(5)
    broken = 0
    for n in range(n_files):
        ending, codec, options = FORMS[n % len(FORMS)]
        path = raw / f"{n:03d}.{ending}"
        own = [piece(scenes[int(rng.integers(len(scenes)))], rng)[:60] for _ in range(2)]
        write_short(path, codec, options, own[0] + own[1])
        if n % 11 == 10:  # no multiple of the number of forms, so that files of each are broken
            break_file(path, BREAKS[n // 11 % len(BREAKS)])
            broken += 1
    return broken


def command(raw: Path, out: Path, *words: str) -> list[str]:
    """The command of a job."""
    given = ["shards", "folder", "--root", str(raw), "--out", str(out), "--clips", "scenes", "--as-is"]
    return [sys.executable, "-m", "maskstream", *given, "--max-rejects", "0.5", *words]


def ran(*of: str, cwd: Path | None = None) -> float:
    """Run a command to its end; returns the processor seconds of it and its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(of, capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        raise SystemExit(f"{' '.join(of)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


def digest(out: Path) -> str:
    """A checksum of all files of the splits, without records and what was found on the way."""
    found = sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file() and not {".records", ".clips", ".locks"} & {*path.parts} and path.suffix != ".lock":
            found.update(f"{path.relative_to(out)} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def kill_and_resume(raw: Path, out: Path, kills: int, seed: int) -> int:
    """Start a job again and again, and kill it with its workers at a random moment; then let it end. Returns how many
    runs were killed before their end.
    """
    moments = random.Random(seed)
    killed = 0
    for _ in range(kills):
        job = subprocess.Popen(
            command(raw, out, "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        begun = time.monotonic()
        while job.poll() is None and not (out / ".clips").exists() and time.monotonic() < begun + 300:
            time.sleep(0.1)
        time.sleep(moments.uniform(0, 6))
        killed += job.poll() is None
        os.killpg(job.pid, signal.SIGKILL) if job.poll() is None else None
        job.wait()
    ran(*command(raw, out, "--workers", "2"))
    return killed


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("work", type=Path)
    for name, value in (("minutes", 120), ("files", 200), ("kills", 20), ("side", 64), ("rate", 12), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    if given.rate < FADE / 2:
        parser.error(
            f"--rate {given.rate}: scenes of 2 s must have the {FADE} frames of a fade; give {FADE // 2} or more"
        )
    raw, facts = given.work / "raw", given.work / "facts.json"
    if not facts.exists():
        raw.mkdir(parents=True, exist_ok=True)
        scenes = read_scenes(given.root, given.side)
        frames = film(scenes, given.minutes, given.seed, rate=given.rate)
        begins, n_frames = write_film(raw / "film.mp4", frames, rate=given.rate)
        broken = write_folder(raw, scenes, given.files)
        facts.write_text(json.dumps({"begins": begins, "n_frames": n_frames, "broken": broken}))
    known = json.loads(facts.read_text())
    begins = {name: {*numbers} for name, numbers in known["begins"].items()}
    print(
        f"{known['n_frames']} frames, {known['n_frames'] / given.rate / 60:.1f} minutes, {known['broken']} broken files"
    )
    before = time.process_time()
    found = find_scenes(raw / "film.mp4").starts[1:]
    print(f"finding takes {1e3 * (time.process_time() - before) / known['n_frames']:.3f} ms of processor time a frame")
    for hard, what, near in ((True, "hard cuts, to the frame", 0), (False, "fades", given.rate // 2)):
        true = begins[CUT] if hard else begins[FADE_OUT] | begins[FADE_IN]
        told(what, {round(one.time_s * given.rate) for one in found if one.hard == hard}, true, near)
    alone = given.work / "alone"
    print(f"alone: {ran(*command(raw, alone, '--workers', '2')):.0f} CPU s", flush=True)
    digests = {"alone": digest(alone)}
    for number in (3, 1, 4, 2):
        ran(*command(raw, given.work / "parts", "--workers", "1", "--part", f"{number}/4"))
    ran(*command(raw, given.work / "parts", "--finish"))
    digests["four parts"] = digest(given.work / "parts")
    print(digests, flush=True)
    killed = kill_and_resume(raw, given.work / "killed", given.kills, given.seed)
    digests[f"killed {killed} times"] = digest(given.work / "killed")
    print(digests, flush=True)
    if given.ray:
        ran(*command(raw, given.work / "ray", "--executor", "ray"))
        digests["Ray"] = digest(given.work / "ray")
    split = alone / "train"
    rejects = pq.read_table(split / "rejects.parquet").to_pylist()
    print(digests, "the same" if len({*digests.values()}) == 1 else "NOT THE SAME")
    print(f"{len(rejects)} rejects of {known['broken']} broken files: {sorted(one['source'] for one in rejects)}")
    print(json.dumps(json.loads((split / "dataset.json").read_text())["counts"]))
    print(f"most memory of a process {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10} MB")


if __name__ == "__main__":
    main()
