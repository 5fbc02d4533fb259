"""Hashes of video files by imagehash and videohash, for copies.py; in an environment that has these two.

    python -m venv peers; peers/bin/pip install imagehash videohash imageio-ffmpeg opencv-python-headless
    python benchmarks/copies.py SPLIT ... --peers peers/bin/python

Prints JSON: by peer the CPU seconds, and by file the hash in hexadecimals. Of imagehash it is that of three frames, at
a quarter, half and three quarters of a clip. videohash 3.0 asks Pillow for a filter by a name that is gone.
"""

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import imagehash
import imageio_ffmpeg
from PIL import Image


def three_frames(path: Path) -> list[Image.Image]:
    """The frames of a clip at a quarter, half and three quarters, or the picture of another file."""
    if path.suffix != ".mp4":
        return [Image.open(path).convert("RGB")]
    file, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = file.read()
        if not there:
            break
        frames.append(frame)
    return [Image.fromarray(frames[len(frames) * n // 4][:, :, ::-1]) for n in (1, 2, 3)]


def main() -> None:
    folder, most = Path(sys.argv[1]), int(sys.argv[2])
    paths = sorted(folder.glob("*/*.*"))
    cv2.setNumThreads(1)
    hashers = {"imagehash, phash": imagehash.phash, "imagehash, dhash": imagehash.dhash}
    seconds = dict.fromkeys(hashers, 0.0)
    hashes: dict[str, dict[str, str]] = {name: {} for name in hashers}
    for path in paths:
        begun = time.process_time()
        shown = three_frames(path)
        reading = time.process_time() - begun
        for name, hashed in hashers.items():
            begun = time.process_time()
            hashes[name][str(path.relative_to(folder))] = "".join(str(hashed(one)) for one in shown)
            seconds[name] += reading + time.process_time() - begun
    found: dict[str, dict[str, object]] = {name: {"seconds": seconds[name], "hashes": hashes[name]} for name in hashers}
    if most and paths[0].suffix == ".mp4":
        found["videohash"] = by_videohash(folder, [path for path in paths if int(path.stem) < most])
    print(json.dumps(found))


def by_videohash(folder: Path, paths: list[Path]) -> dict[str, object]:
    Image.ANTIALIAS = Image.LANCZOS
    with TemporaryDirectory() as tools:
        (Path(tools) / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
        from videohash import VideoHash

        begun, of = sum(os.times()[:4]), {}
        for path in paths:
            made = VideoHash(path=str(path))
            of[str(path.relative_to(folder))] = made.hash_hex[2:].rjust(16, "0")
            made.delete_storage_path()
        return {"seconds": sum(os.times()[:4]) - begun, "hashes": of}


if __name__ == "__main__":
    main()
