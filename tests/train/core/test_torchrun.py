"""Real torchrun with gloo ranks: a killed rank, restarts on other numbers of ranks, bad samples on one rank, a second
training in the same processes.
"""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.shards.format.manifest import Manifest

SCRIPT = Path(__file__).with_name("global_batches.py")
STEPS, GLOBAL_BATCH = 9, 4
LIMIT_S = 300


def trained(ranks, data, out, log, *, dies_at=-1, max_bad=0.0, slow_s=0.0):
    """A training run on `ranks` gloo ranks; its exit status and output."""
    return torchrun(ranks, SCRIPT, data, out, log, STEPS, GLOBAL_BATCH // ranks, dies_at, max_bad, slow_s)


def torchrun(ranks, script, *arguments):
    """Runs a script on `ranks` ranks; its exit status and output. A hang ends in TimeoutExpired."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", script]
    process = subprocess.Popen(
        [str(part) for part in (*command, *arguments)],
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


@pytest.mark.slow
def test_a_killed_rank_and_restarts_on_one_and_two_ranks_change_no_global_batch(eleven, tmp_path):
    wanted = uninterrupted(eleven)
    assert len({epoch for epoch, _ in wanted}) > 2
    out, log = tmp_path / "out", tmp_path / "log"
    status, output = trained(2, eleven, out, log, dies_at=6)
    assert status != 0, output
    assert "Signal 9" in output, output
    before = steps_of(log, 2)
    assert list(before.items()) == list(wanted.items())[:6]
    assert max(path.name for path in (out / "checkpoints").glob("step-*")) == "step-00000004"
    for ranks in (1, 2):
        again, log_again = tmp_path / f"out{ranks}", tmp_path / f"log{ranks}"
        shutil.copytree(out, again)
        status, output = trained(ranks, eleven, again, log_again)
        assert status == 0, output
        after = steps_of(log_again, ranks)
        assert list(after.items()) == list(wanted.items())[4:]
        state = json.loads((again / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())
        assert (state["loader"]["epoch"], state["loader"]["batch"]) == divmod(STEPS, 2)


BAD = {f"clip{i}" for i in (1, 5, 6, 10)}


@pytest.fixture(scope="module")
def broken(eleven, tmp_path_factory):
    """The same split with samples that are corrupt, truncated and missing: those of BAD."""
    folder = tmp_path_factory.mktemp("broken") / "split"
    shutil.copytree(eleven, folder)
    manifest = Manifest.load(folder)
    mp4 = manifest.component("mp4")
    with open(manifest.shard_path(1), "r+b") as file:  # sample 1: noise in place of its frames
        start = manifest.video(1).header_size
        file.seek(int(mp4.offset[1]) + start)
        file.write(np.random.default_rng(0).bytes(int(mp4.size[1]) - start))
    manifest.shard_path(5).unlink()  # samples 5 and 6: the shard is missing
    os.truncate(manifest.shard_path(10), int(mp4.offset[10]) + 1000)  # sample 10: the tar ends in it
    for sums in folder.glob("*.sums"):  # clips of a few kilobytes share their blocks, and not all of these are bad
        sums.unlink()
    return folder


def bad_of_ranks(steps):
    """How many bad samples each of two ranks has in each step."""
    return [[sum(key in BAD for key in keys[2 * r : 2 * r + 2]) for r in range(2)] for keys in steps.values()]


@pytest.mark.slow
def test_bad_and_slow_samples_on_one_rank_keep_the_ranks_in_step(eleven, broken, tmp_path):
    """Whoever meets a bad one takes its replacement, and no rank waits for another for ever; rank 1 reads slowly."""
    wanted = uninterrupted(eleven)
    assert any(one != other for one, other in bad_of_ranks(wanted)), "some step is worse for one rank than the other"
    status, output = trained(2, broken, tmp_path / "out", tmp_path / "log", max_bad=1.0, slow_s=0.1)
    assert status == 0, output
    assert "replaced" in output, output
    got = steps_of(tmp_path / "log", 2)
    assert list(got) == list(wanted)
    for step, keys in wanted.items():
        assert [g if k not in BAD else None for g, k in zip(got[step], keys, strict=True)] == [
            k if k not in BAD else None for k in keys
        ]
    assert not BAD & {key for keys in got.values() for key in keys}
    assert got == uninterrupted(broken, max_bad_fraction=1.0)


@pytest.mark.slow
def test_ranks_that_skip_bad_samples_hang_and_ranks_that_replace_them_do_not(eleven, broken, tmp_path):
    """The control of the test above: DDP over the same samples, once replaced and once skipped."""
    left = [STEPS * 2 - bad for bad in np.sum(bad_of_ranks(uninterrupted(eleven)), axis=0).tolist()]
    assert -(-left[0] // 2) != -(-left[1] // 2), f"skipping must leave one rank a batch more than the other: {left}"
    script = SCRIPT.with_name("skipping_ranks.py")
    status, output = torchrun(2, script, eleven, broken, tmp_path / "log", STEPS, ",".join(sorted(BAD)))
    logs = [(tmp_path / f"log.{r}").read_text().split() for r in range(2)]
    assert [log.count("replaced") for log in logs] == [STEPS] * 2, output
    assert "skipped" in logs[0]
    assert "skipped" in logs[1]
    assert "finished" not in logs[0] + logs[1]
    assert status != 0
    assert "Timed out" in output, output


@pytest.mark.slow
def test_a_second_training_in_the_same_processes_forgets_the_first_ones_group(eleven, tmp_path):
    runs = 10  # the end of a group once hung in every tenth
    status, output = torchrun(2, SCRIPT.with_name("training_again.py"), eleven, tmp_path, runs)
    assert status == 0, output
    assert [output.count(f"run {run} ended at step 2") for run in range(runs)] == [2] * runs, output
    first, second = (load_file(tmp_path / str(run) / "model.safetensors") for run in range(2))
    assert {name: weight.tobytes() for name, weight in first.items()} == {
        name: weight.tobytes() for name, weight in second.items()
    }
