"""Predictors of answers: a command that reads and writes JSON lines, a Python callable, a run, and the trivial one."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.modalities.image_text.batch import PADDING, SPECIAL, ImageTextBatch, TextRows
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.errors import MaskstreamError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.train.core.data import read_label_names
from maskstream.train.core.run_folder import run_recipe, run_weights
from maskstream.train.core.weights import load_model

from .evaluate import Predictor, Prompt, Question, find_frequent_answers

_AT_ONCE = 64


class PredictorError(MaskstreamError):
    """A predictor ended, took too long, or replied in the wrong format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandPredictor:
    """A command that is started once, without a shell, and answers line by line.

    An input line is {"id", "prompt", "question", "choices", "image"}, where image is the path of a PNG file; an output
    line is {"id", "answer"}. A PredictorError is raised if the command ends, is too slow, or writes another line.

    Attributes:
        command: Program and arguments.
        timeout_s: Seconds to wait for each reply; for the first one, start-up is included.
    """

    command: tuple[str, ...]
    timeout_s: float = 60.0

    def __call__(self, prompts: Sequence[Prompt]) -> list[str]:
        with tempfile.TemporaryDirectory(prefix="maskstream-") as folder:
            try:
                process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as error:
                raise PredictorError(
                    f"{self.command[0]!r} cannot be started ({error}); pass the path of a program"
                ) from error
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                lines = _Lines(process.stdout)
                return [
                    self._ask_predictor(process.stdin, lines, prompt, Path(folder) / "image.png") for prompt in prompts
                ]
            finally:
                process.kill()
                process.communicate()

    def _ask_predictor(self, into: IO[bytes], lines: _Lines, prompt: Prompt, image: Path) -> str:
        cv2.imwrite(str(image), cv2.cvtColor(prompt.image, cv2.COLOR_RGB2BGR))
        asked = {
            "id": prompt.id,
            "prompt": prompt.text,
            "question": prompt.question,
            "choices": list(prompt.choices),
            "image": str(image),
        }
        try:
            into.write(json.dumps(asked).encode() + b"\n")
            into.flush()
        except OSError as error:
            raise PredictorError(f"{self.command[0]!r} ended before prompt {prompt.id!r} ({error})") from error
        line = lines.next(self.timeout_s)
        if line is None:
            raise PredictorError(
                f"{self.command[0]!r} did not reply to {prompt.id!r} within {self.timeout_s:g} s; raise the limit, or "
                "let it flush each line"
            )
        if not line:
            raise PredictorError(f"{self.command[0]!r} ended before it replied to {prompt.id!r}")
        try:
            told: Any = json.loads(line)
            number, answer = told["id"], told["answer"]
        except (ValueError, TypeError, KeyError) as error:
            raise PredictorError(
                f"{self.command[0]!r} replied {line[:80]!r} to {prompt.id!r}; a reply must be a line "
                '{"id": ..., "answer": ...}'
            ) from error
        if number != prompt.id or not isinstance(answer, str):
            raise PredictorError(
                f"{self.command[0]!r} answered {number!r} with {answer!r:.80}, but the request was {prompt.id!r}"
            )
        return answer


class _Lines:
    """Lines of a pipe, each within a time limit."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._left = pipe, b""

    def next(self, timeout_s: float) -> bytes | None:
        """Return the next line; None after the timeout, b"" at the end."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self._left:
            ready, _, _ = select.select([self._pipe], [], [], max(end - time.monotonic(), 0))
            if not ready:
                return None
            data = os.read(self._pipe.fileno(), 1 << 16)
            if not data:
                return b""
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return line


def frequent(known: Sequence[Question]) -> Predictor:
    """Return the trivial predictor: the most frequent answer to known questions with the same words, else to all
    questions.
    """
    of_words = {
        text: find_frequent_answers([one for one in known if one.text == text])[""] for text in {q.text for q in known}
    }
    every = find_frequent_answers(known)[""]
    return lambda prompts: [of_words.get(prompt.question, every) for prompt in prompts]


@runtime_checkable
class ClassifiesAnswers(Protocol):
    """A model whose classes are answers to questions about images."""

    n_answers: int

    def scores(self, batch: ImageTextBatch) -> Tensor:
        """Return logits of the answers (B, answers)."""


def load_run(run: Path, data: Manifest) -> Predictor:
    """Load a classifier of answers, trained by `maskstream train vqa-tiny` on a split with the tokenizer of `data`.

    It reads the question and the whole resized image, but not the prompt, and returns no rationales.

    Args:
        run: Folder of the run.
        data: Split of the questions.

    Raises:
        ValueError: The run is of another kind, or has other answers.
    """
    recipe, model = run_recipe(run), load_model(run_weights(run))
    config = recipe.data
    if not isinstance(config, ImageTextData) or not isinstance(model, ClassifiesAnswers):
        raise ValueError(f"{run} contains no answer classifier; pass a run of vqa-tiny, or a command")
    from tokenizers import Tokenizer

    facts = read_tokenizer_facts(data.location, data.info)
    tokenizer = Tokenizer.from_str(read_tokenizer(data.store, data.info).decode())
    names = read_label_names(run) or data.label_names  # a run of an earlier release does not name its answers
    if len(names) != model.n_answers:
        raise ValueError(
            f"{run} has {model.n_answers} answers, but {data} has {len(names)}; pass a run trained on this data set"
        )

    def row(text: str) -> list[int]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        ends = [[] if one is None else [one] for one in (facts.begin, facts.end)]
        return [*ends[0], *ids[: config.length - len(ends[0]) - len(ends[1])], *ends[1]]

    @torch.inference_mode()
    def replies(prompts: Sequence[Prompt]) -> list[str]:
        found: list[str] = []
        for first in range(0, len(prompts), _AT_ONCE):
            some = prompts[first : first + _AT_ONCE]
            scores = model.scores(_batch(some, [row(one.question) for one in some], config, facts.pad or 0))
            found += [names[label] for label in scores.argmax(dim=1).tolist()]
        return found

    return replies


def _batch(prompts: Sequence[Prompt], rows: Sequence[list[int]], config: ImageTextData, pad: int) -> ImageTextBatch:
    size, n = (config.size, config.size), len(prompts)
    images = [cv2.resize(one.image, size, interpolation=cv2.INTER_AREA) for one in prompts]
    tokens = torch.full((n, config.length), pad, dtype=torch.int32)
    roles = torch.full((n, config.length), PADDING, dtype=torch.int8)
    for i, ids in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        roles[i, : len(ids)] = SPECIAL
    return ImageTextBatch(
        image=torch.from_numpy(np.stack(images)),
        image_mask=None,
        text=TextRows(tokens=tokens, words=torch.full_like(tokens, -1), roles=roles),
        text_mask=None,
        box=torch.full((n, 4), float("nan")),
        label=torch.full((n,), -1),
        key=[one.id for one in prompts],
    )


def wrap_callable(reply: Any) -> Predictor:
    """Wrap a function of (prompt, image uint8 (h, w, 3)) that returns a text; raise PredictorError for another
    result.
    """

    def replies(prompts: Sequence[Prompt]) -> list[str]:
        found = []
        for prompt in prompts:
            answer = reply(prompt.text, prompt.image)
            if not isinstance(answer, str):
                raise PredictorError(f"the predictor replied {answer!r:.80} to {prompt.id!r}; a reply must be a text")
            found.append(answer)
        return found

    return replies
