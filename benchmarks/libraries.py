"""Makes torchcodec and SPDL load the FFmpeg libraries of PyAV's wheel, so that all readers use one FFmpeg.

The wheel's files have unique names (libavcodec-5e6b81c2.so.62.28.102). A folder of links with the plain names
(libavcodec.so.62) on LD_LIBRARY_PATH serves the other libraries. The dynamic linker reads that variable when a process
starts, so the process restarts itself once.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

SHIPPED = re.compile(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)")
REMEDY = "needs FFmpeg's shared libraries: apt-get install ffmpeg"


def start_with_pyav_libraries(folder: Path) -> None:
    """Fills `folder` with the links and starts this process anew; returns where that is done, or not possible."""
    spec = importlib.util.find_spec("av")
    if spec is None or spec.origin is None or not sys.platform.startswith("linux"):
        return
    shipped = sorted((Path(spec.origin).parent.parent / "av.libs").glob("*.so*"))
    search = os.environ.get("LD_LIBRARY_PATH", "")
    if not shipped or str(folder.resolve()) in search.split(":"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for file in shipped:
        (folder / file.name).symlink_to(file)
        if match := SHIPPED.match(file.name):
            (folder / f"{match[1]}.so.{match[2]}").symlink_to(file)
    os.environ["LD_LIBRARY_PATH"] = f"{folder.resolve()}:{search}".rstrip(":")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def why_missing(name: str, error: Exception) -> str:
    """The message about a reader that cannot be used."""
    reason = str(error).strip().splitlines()[0]
    return f"{name}: {reason}" + (f" ({REMEDY})" if "lib" in reason.lower() or "ffmpeg" in reason.lower() else "")


def loaded_libavcodecs() -> list[str]:
    """The files of libavcodec in this process: PyAV's, which torchcodec and SPDL share, and what others bring along."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    loaded = {Path(line.split()[-1]) for line in lines if "/libavcodec" in line}
    return sorted(f"{path.parent.name}/{path.name}" for path in loaded)
