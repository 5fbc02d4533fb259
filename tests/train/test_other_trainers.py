"""The loader in trainers that others wrote, as examples/ has them, on two ranks: each trains on its share, in order."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from maskstream.pipelines import VideoClip, masks, video_loader

SCRIPT = Path(__file__).with_name("other_trainers.py")
EXAMPLES = Path(__file__).parents[2] / "examples" / "trainers"
TRAINERS = ("fsdp2", "huggingface", "lightning")
STEPS, BATCH, SEED, RANKS = 5, 2, 3, 2
LIMIT_S = 400


@pytest.fixture(scope="module")
def output(eleven, tmp_path_factory):
    """The folder that the trainers wrote into, all in one run of torchrun, and what they printed."""
    out = tmp_path_factory.mktemp("trainers")
    for trainer in TRAINERS:
        (out / trainer).mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}", SCRIPT]
    done = subprocess.run(
        [*command, EXAMPLES, eleven, out, *TRAINERS],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return out, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_of_others_sees_the_plan(eleven, output, trainer):
    out, printed = output
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "mask": masks.Tube(ratio=0.75), "patch": 8}
    alone = video_loader(eleven, batch_size=BATCH * RANKS, seed=SEED, threads=1, device="cpu", **settings)
    plan = [batch.key for batch in islice(alone.repeat(), STEPS)]
    assert len(plan) > 2 * len(alone), "the run goes over the end of an epoch"
    for rank in range(RANKS):
        log = out / f"{trainer}.{rank}"
        seen = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        assert seen == [keys[BATCH * rank : BATCH * (rank + 1)] for keys in plan], printed
