"""Real torchrun with gloo ranks: a killed rank, restarts on other numbers of ranks, and bad samples on one rank."""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.preprocess.encode.video import PROFILES, encode_video
from maskstream.shards.dataset import finish_split
from maskstream.shards.manifest import Manifest
from maskstream.shards.sample import DatasetInfo, Sample
from maskstream.shards.writer import write_shard

SCRIPT = Path(__file__).with_name("global_batches.py")
STEPS, GLOBAL_BATCH = 9, 4
LIMIT_S = 100


@pytest.fixture(scope="module")
def eleven(tmp_path_factory):
    """The folder of a split of 11 clips in shards of 5, 2 and 4."""
    folder, number, records = tmp_path_factory.mktemp("eleven"), 0, []
    for shard, size in enumerate((5, 2, 4)):
        samples = []
        for _ in range(size):
            path = folder / "raw.mp4"
            pattern = (
                np.random.default_rng(number).integers(0, 255, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            )
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
                stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
                for i in range(20):
                    frame = np.ascontiguousarray(np.roll(pattern, (i, 2 * i), (0, 1)))
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode(None))
            video = encode_video(path, PROFILES["train"])
            path.unlink()
            samples.append(
                Sample(key=f"clip{number}", components={"mp4": video.data}, source=str(number), video=video.index)
            )
            number += 1
        records.append(write_shard(folder / f"t-{shard:06d}.tar", samples))
    finish_split(folder, DatasetInfo(dataset="t", split="train", modality="video", profile="train"), records, [])
    return folder


def torchrun(ranks, data, out, log, *, dies_at=-1, max_bad=0.0, steps=STEPS):
    """Runs the script on `ranks` gloo ranks; its exit status and output. A hang ends in TimeoutExpired."""
    arguments = [data, out, log, steps, GLOBAL_BATCH // ranks, dies_at, max_bad]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", SCRIPT]
    process = subprocess.Popen(
        [str(part) for part in command + arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.terminate()
        process.wait(timeout=60)
    return process.returncode, output


def steps_of(log, ranks):
    """What the ranks logged, as {(epoch, batch): keys of the global batch}, in the order of the steps."""
    shares = []
    for rank in range(ranks):
        lines = [line.split() for line in Path(f"{log}.{rank}").read_text().splitlines()]
        shares.append({(int(epoch), int(batch)): keys for epoch, batch, *keys in lines})
    return {step: [key for share in shares for key in share[step]] for step in shares[0] if step in shares[-1]}


def uninterrupted(data, **changes):
    """The keys of the run's global batches, from one loader in this process."""
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "mask": masks.Tube(ratio=0.75), "patch": 8, "seed": 3}
    run = video_loader(data, batch_size=GLOBAL_BATCH, threads=1, device="cpu", **settings, **changes)
    steps = [divmod(step, len(run)) for step in range(STEPS)]
    return {step: batch.key for step, batch in zip(steps, islice(run.repeat(), STEPS), strict=True)}


def test_a_killed_rank_and_restarts_on_one_and_two_ranks_change_no_global_batch(eleven, tmp_path):
    wanted = uninterrupted(eleven)
    assert len({epoch for epoch, _ in wanted}) > 2
    out, log = tmp_path / "out", tmp_path / "log"
    status, output = torchrun(2, eleven, out, log, dies_at=6)
    assert status != 0, output
    assert "Signal 9" in output, output
    before = steps_of(log, 2)
    assert list(before.items()) == list(wanted.items())[:6]
    latest = (out / "checkpoints" / "latest").read_text()
    assert latest == "step-00000004"
    for ranks in (1, 2):
        again, log_again = tmp_path / f"out{ranks}", tmp_path / f"log{ranks}"
        shutil.copytree(out, again)
        status, output = torchrun(ranks, eleven, again, log_again)
        assert status == 0, output
        after = steps_of(log_again, ranks)
        assert list(after.items()) == list(wanted.items())[4:]
        state = json.loads((again / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())
        assert (state["loader"]["epoch"], state["loader"]["batch"]) == divmod(STEPS, 2)


def test_bad_samples_on_one_rank_keep_the_ranks_in_step(eleven, tmp_path):
    """Corrupt, truncated and missing: whoever meets one takes its replacement, and no rank waits for another."""
    broken = tmp_path / "split"
    shutil.copytree(eleven, broken)
    manifest = Manifest.load(broken)
    mp4 = manifest.component("mp4")
    with open(manifest.shard_path(1), "r+b") as file:  # sample 1: noise in place of its frames
        start = manifest.video(1).header_size
        file.seek(int(mp4.offset[1]) + start)
        file.write(np.random.default_rng(0).bytes(int(mp4.size[1]) - start))
    manifest.shard_path(5).unlink()  # samples 5 and 6: the shard is missing
    os.truncate(manifest.shard_path(10), int(mp4.offset[10]) + 1000)  # sample 10: the tar ends in it
    bad = {f"clip{i}" for i in (1, 5, 6, 10)}
    wanted = uninterrupted(eleven)
    hit = [[sum(key in bad for key in keys[2 * r : 2 * r + 2]) for r in range(2)] for keys in wanted.values()]
    assert any(one != other for one, other in hit), "some step has more bad samples on one rank than on the other"
    status, output = torchrun(2, broken, tmp_path / "out", tmp_path / "log", max_bad=1.0)
    assert status == 0, output
    assert "replaced" in output, output
    got = steps_of(tmp_path / "log", 2)
    assert list(got) == list(wanted)
    for step, keys in wanted.items():
        assert [g if k not in bad else None for g, k in zip(got[step], keys, strict=True)] == [
            k if k not in bad else None for k in keys
        ]
    assert not bad & {key for keys in got.values() for key in keys}
    assert got == uninterrupted(broken, max_bad_fraction=1.0)
