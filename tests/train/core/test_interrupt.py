"""Signals while a run trains and while it saves."""

import errno
import os
import signal

import pytest

from maskstream.shards.errors import StoreError
from maskstream.train import Trainer, read_metrics
from maskstream.train.core import checkpoint_write
from maskstream.train.core.process import StopRequest

TERM, INT = signal.SIGTERM, signal.SIGINT


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.fixture(autouse=True, params=[signal.default_int_handler, signal.SIG_IGN], ids=["", "background"])
def handler(request):
    """What SIGINT does outside of a run: a job that a script starts in the background ignores it."""
    before = signal.signal(INT, request.param)
    yield
    signal.signal(INT, before)


@pytest.fixture
def run(recipe, synthetic_loader, tmp_path):
    """Trains with signals in the making of the third batch, and with others in the middle of a save."""

    def training(in_step=(), in_save=(), monkeypatch=None, steps=5):
        loader = synthetic_loader(batches=5)
        loader.before_batch = lambda made: send(*in_step) if made == 2 else None
        if monkeypatch is not None:
            moments = checkpoint_write._moments

            def interrupted(*args):
                send(*in_save)
                return moments(*args)

            monkeypatch.setattr(checkpoint_write, "_moments", interrupted)
        return Trainer(recipe, loader, tmp_path / "run", steps=steps, progress=False).run()

    return training


@pytest.mark.parametrize("in_step", [(TERM,), (INT,), (TERM, TERM), (INT, TERM), (TERM, INT)])
@pytest.mark.parametrize("in_save", [(), (TERM,), (INT,), (INT, TERM), (TERM, TERM, INT)])
def test_signals_while_a_step_and_its_save_run_end_with_that_checkpoint(run, tmp_path, monkeypatch, in_step, in_save):
    handlers = [signal.getsignal(number) for number in (TERM, INT)]
    result = run(in_step, in_save, monkeypatch)
    assert (result.step, result.finished) == (3, False)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]
    assert [signal.getsignal(number) for number in (TERM, INT)] == handlers
    monkeypatch.undo()
    assert run().step == 5
    assert [m.step for m in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(1, 6))


def test_a_second_ctrl_c_in_a_step_and_in_a_save_interrupts_and_the_older_checkpoint_stays(run, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run((INT, INT))
    assert not (tmp_path / "run/checkpoints").exists()
    run((TERM,))
    with pytest.raises(KeyboardInterrupt):
        run((TERM,), (INT, INT), monkeypatch)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]
    monkeypatch.undo()
    assert run().step == 5
    assert [m.step for m in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(1, 6))


def test_a_signal_in_a_save_between_two_steps_is_a_request(recipe, synthetic_loader, tmp_path, monkeypatch):
    moments, saves = checkpoint_write._moments, []

    def interrupted(*args):
        saves.append(1)
        if len(saves) == 1:
            send(INT)
        return moments(*args)

    monkeypatch.setattr(checkpoint_write, "_moments", interrupted)
    result = Trainer(recipe, synthetic_loader(), tmp_path, steps=10, save_every=2, progress=False).run()
    assert result.step == 3
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def test_a_full_disk_while_saving_keeps_the_older_checkpoint(run, tmp_path, monkeypatch):
    run((TERM,))
    with monkeypatch.context() as patch:

        def full(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(checkpoint_write, "save", full)
        with pytest.raises(
            StoreError, match=r"not enough space to write .*step-00000005 .*free space and run the same"
        ):
            run()
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]
    assert run().step == 5
    assert [m.step for m in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(1, 6))


def test_after_saving_the_second_ctrl_c_counts_as_before():
    with StopRequest() as stop:
        with stop.saving():
            pass
        send(INT)
        assert stop.asked
        with stop.saving():
            send(INT)
        with pytest.raises(KeyboardInterrupt):
            send(INT)
