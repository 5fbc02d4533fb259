"""The loader in trainers that others wrote, as examples/ has them, on two ranks: each trains on its share, in order."""

import os
import signal
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


def plan_of(eleven, batch_size):
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "mask": masks.Tube(ratio=0.75), "patch": 8}
    alone = video_loader(eleven, batch_size=batch_size, seed=SEED, threads=1, device="cpu", **settings)
    assert 2 * len(alone) < STEPS or batch_size == BATCH, "the run goes over the end of an epoch"
    return [batch.key for batch in islice(alone.repeat(), STEPS)]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_of_others_sees_the_plan(eleven, output, trainer):
    out, printed = output
    plan = plan_of(eleven, BATCH * RANKS)
    for rank in range(RANKS):
        log = out / f"{trainer}.{rank}"
        seen = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        assert seen == [keys[BATCH * rank : BATCH * (rank + 1)] for keys in plan], printed


KILLED = """
import os, signal, sys
from pathlib import Path

examples, data, out = sys.argv[1:]
sys.path.insert(0, examples)
import lightning_trainer


class Logged(lightning_trainer.Module):
    def training_step(self, batch, index):
        with open(Path(out) / "keys", "a") as file:
            print(*batch.key, file=file)
        if not self.resumes and self.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, index)


Logged.resumes = (Path(out) / "keys").exists()
lightning_trainer.fit(Logged(), data, Path(out), steps=5, every=2)
"""


@pytest.mark.slow
def test_a_killed_lightning_run_resumes_at_its_last_checkpoint(eleven, tmp_path):
    command = [sys.executable, "-c", KILLED, EXAMPLES, eleven, tmp_path]
    codes = [subprocess.run(command, capture_output=True, timeout=LIMIT_S).returncode for _ in range(2)]
    seen = [line.split() for line in (tmp_path / "keys").read_text().splitlines()]
    plan = plan_of(eleven, BATCH)
    assert codes == [-signal.SIGKILL, 0]
    assert seen == plan[:4] + plan[2:], "killed in the fourth step, resumed after the second"
