"""Web servers that send at any rate, a byte to a megabyte a second, to a loader and to a job that reads raw files.

    python -m tests.attacks slow-servers -n 500 --seed 0

The floor of bytes a second is looked at over a short window here. "exact": the batches, or the file, of an undisturbed
run. "outage": an OutageError. "hang": neither within a minute; "wrong", "foreign": other batches, another exception.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from maskstream.pipelines import image_loader
from maskstream.preprocess.raw.url import fetched
from maskstream.shards.errors import OutageError
from maskstream.shards.stores import client, remote_files

from ..pipelines.every_modality import write_split
from ..web_server import serving

LIMIT_S = 60.0
WINDOW_S = 0.4


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Reads `count` times from a slow server; returns how many ended in which way."""
    split = write_split("image", folder)
    wanted = _loaded(str(split))
    tar = sorted(split.glob("*.tar"))[0]
    ends: Counter[str] = Counter()
    fast = {"READ_S": WINDOW_S, "RETRY_S": WINDOW_S, "MAX_RETRIES": 1}
    with patch.multiple(client, **fast), patch.object(remote_files, "ASK_S", 2 * WINDOW_S):
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            with serving(split) as server:
                server.rate = 10.0 ** rng.uniform(1.5, 6)
                url, reads = server.url, _whole if rng.random() < 0.3 else _loaded
                truth = [tar.stat().st_size] if reads is _whole else wanted
                end = _end(reads, url if reads is _loaded else f"{url} {tar.name}", truth)
                if end not in ("exact", "outage"):
                    print(f"{end}: seed {seed}, number {number}, {server.rate:.0f} bytes a second")
            ends[end.partition(" ")[0]] += 1
    return ends


def _loaded(location: str) -> list[Any]:
    """The images of an epoch."""
    loader = image_loader(location, batch_size=2, size=32, patch=8, shuffle=False, device="cpu", threads=1)
    return [batch.image.numpy().tobytes() for batch in loader]


def _whole(words: str) -> list[Any]:
    url, name = words.split()
    return [fetched(url, name, None).size_bytes]


def _end(read: Callable[[str], list[Any]], location: str, wanted: list[Any]) -> str:
    """What comes of reading, in a thread that may hang."""
    end = ["hang"]

    def run() -> None:
        try:
            end[0] = "exact" if read(location) == wanted else "wrong"
        except OutageError:
            end[0] = "outage"
        except Exception as error:
            end[0] = f"foreign {error!r:.300}"

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return end[0]
