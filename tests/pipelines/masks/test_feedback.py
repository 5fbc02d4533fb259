"""Feedback: scores reach threads and spawned workers whole, masks name their version, nothing is left over."""

import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import ByClass, Draw, Padded, Replace
from maskstream.pipelines.masks.text.feedback import Feedback, Published, smoothed
from maskstream.pipelines.stream.rng import Place

from .texts import text, token_grid

SCRIPT = Path(__file__).with_name("feedback_worker.py")


def lines(what: str, code: int = 0) -> list[object]:
    """What the script printed, a JSON value a line."""
    done = subprocess.run([sys.executable, "-W", "error", SCRIPT, what], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_worker_draws_with_the_scores_that_the_trainer_published() -> None:
    rows = lines("worker")
    versions = [v for _, found, _ in rows for v in found]
    assert versions == sorted(versions)
    assert (versions[0], versions[-1]) == (0, 8)
    for step, found, (first, second) in rows:
        assert max(found) <= step  # a batch cannot have been drawn with scores of after it
        if found == [0]:
            assert abs(first - second) < 0.2
        elif len(found) == 1 and found[0] not in (0, 5):
            assert (second > first + 0.3) == (found[0] < 5)


@pytest.mark.slow
def test_no_read_mixes_two_versions() -> None:
    assert lines("torn") == [[0, 0]]


@pytest.mark.slow
def test_only_the_trainer_publishes_and_the_memory_has_no_name() -> None:
    refused, (version, name) = lines("one-way", code=-9)
    assert "only the process that created the channel" in refused
    assert version == 1
    assert name.endswith("(deleted)")


def test_what_was_published_is_read() -> None:
    feedback = Feedback(3)
    start = feedback.read()
    assert (start.version, start.scores.tolist()) == (0, [0.0, 0.0, 0.0])
    assert feedback.publish([1, 2, 3]) == 1
    assert feedback.publish(torch.tensor([0.5, 0.25, 4.0], requires_grad=True)) == 2
    now = feedback.read()
    assert (now.version, now.scores.tolist()) == (2, [0.5, 0.25, 4.0])
    assert start.scores.tolist() == [0.0, 0.0, 0.0]  # what was read before stays what it was
    again = Feedback(3, scores=now.scores, version=now.version)
    assert again.publish([0, 0, 0]) == 3
    assert feedback.read().version == 2


@pytest.mark.parametrize("written", range(1, 40))
def test_what_is_half_written_is_not_read(written: int) -> None:
    """A writer that is stopped after any number of bytes leaves the version before it."""
    feedback, later = Feedback(2), Feedback(2)
    for channel in (feedback, later):
        channel.publish([1.0, 2.0])
        channel.publish([3.0, 4.0])
    later.publish([5.0, 6.0])
    feedback._memory[1, :written] = later._memory[1, :written]
    now = feedback.read()
    assert (now.version, now.scores.tolist()) in [(2, [3.0, 4.0])] + ([(3, [5.0, 6.0])] if written >= 32 else [])
    assert feedback.publish([7.0, 8.0]) == now.version + 1
    assert feedback.read().scores.tolist() == [7.0, 8.0]


def test_a_slow_reader_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a reader's looks at the two places the writer filled the first anew and is writing the second."""
    versions = {v: Published(version=v, scores=np.zeros(1)) for v in (10, 12, 13)}
    looks = iter([(0, 10), (1, None), (0, 12), (0, 12), (1, 13)])

    def slot(self: Feedback, place: int) -> Published | None:
        expected, version = next(looks)
        assert place == expected
        return None if version is None else versions[version]

    feedback = Feedback(1)
    monkeypatch.setattr(Feedback, "_slot", slot)
    assert feedback.read().version == 13


def test_memory_that_something_else_wrote_into_is_an_error() -> None:
    feedback = Feedback(2)
    feedback._memory[:] = 7
    with pytest.raises(RuntimeError, match="no complete scores"):
        feedback.read()


def test_threads_publish_in_turn() -> None:
    feedback = Feedback(4)
    versions: list[int] = []

    def publish() -> None:
        versions.extend(feedback.publish(np.full(4, 1.0)) for _ in range(50))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(1, 201))


def test_wrong_scores_are_refused() -> None:
    feedback = Feedback(2)
    for wrong in ([1.0], [1.0, float("nan")], [float("inf"), 0.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="the scores must be 2 finite numbers"):
            feedback.publish(wrong)
    with pytest.raises(ValueError, match="at least 1 class"):
        Feedback(0)
    with pytest.raises(RuntimeError, match="process that is being started"):
        pickle.dumps(feedback)
    assert feedback.read().version == 0


def test_masks_say_which_version_they_were_drawn_with() -> None:
    feedback = Feedback(17)
    cues = text(40, np.random.default_rng(0))
    draws = [Draw.of(0, 0, str(i), 0, Place(), cues) for i in range(8)]
    follow = Padded(mask=Replace(mask=ByClass(feedback=feedback), mask_id=4, vocabulary=9))
    scores = tuple(float(i) for i in range(17))
    first = follow.draw(token_grid(40), draws)
    feedback.publish(scores)
    draws = [Draw.of(0, 0, str(i), 0, Place(), cues) for i in range(8)]
    second = follow.draw(token_grid(40), draws)
    assert first.version.tolist() == [0] * 8
    assert second.version.tolist() == [1] * 8
    assert not torch.equal(first.masked, second.masked)
    draws = [Draw.of(0, 0, str(i), 0, Place(), cues) for i in range(8)]
    fixed = Padded(mask=ByClass(scores=scores)).draw(token_grid(40), draws)
    assert torch.equal(second.masked, fixed.masked)
    assert fixed.version is None


def test_smoothed_scores_are_the_published_ones() -> None:
    rng = np.random.default_rng(0)
    scores, momentum = rng.random(5), 0.9
    loss, classes = torch.from_numpy(rng.random((4, 30))), torch.from_numpy(rng.integers(-1, 4, (4, 30)))
    expected = scores.copy()
    for c in range(4):
        expected[c] = momentum * scores[c] + (1 - momentum) * float(loss[classes == c].mean())
    np.testing.assert_allclose(smoothed(scores, loss, classes, momentum), expected, rtol=1e-12)
    assert smoothed(scores, loss.float(), classes)[4] == scores[4]  # a class that did not occur
    np.testing.assert_array_equal(smoothed(scores, loss[:0], classes[:0]), scores)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.5"):
        smoothed(scores, loss, classes, 1.5)
    with pytest.raises(ValueError, match=r"classes 0 to 4, got \d+ losses for higher classes"):
        smoothed(scores, loss, classes + 2)
    with pytest.raises(ValueError, match="each loss needs a class"):
        smoothed(scores, loss[:3], classes)
