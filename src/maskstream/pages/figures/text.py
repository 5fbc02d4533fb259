"""Figures of texts: the tokens of a row with hidden ones marked, and what a model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.preprocess.encode.text.tokenizer import tokenizer_of

from .card import Card, Fact, Facts, WordPieces, label_words
from .figures import mask_facts
from .tokens import MaskCounts
from .words import plural

HIDDEN = (("gone", "hidden"),)
REPLACED = (("gone", "hidden"), ("random", "a random token"), ("same", "as it is, but predicted"))
PREDICTED = (("same", "predicted"), ("random", "predicted, and another than it was"))
WITHIN = "##"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFigures:
    """Of rows of `length` tokens. tokenizer: a tokenizer.json. mask_id: the id of its [MASK]."""

    length: int
    tokenizer: bytes
    mask_id: int | None
    packed: bool
    label_names: Sequence[str] = ()

    def about(self, batch: TextBatch) -> tuple[str, dict[str, str]]:
        """A description of the rows."""
        n, real = len(batch), int(batch.lengths.sum())
        held = "documents one behind the other" if self.packed else "one document, or a window of it"
        lede = (
            f"{plural(n, 'row')} of {self.length:,} tokens as the training loop receives "
            f"{'it' if n == 1 else 'them'}. A row holds {held}. The model predicts the hidden tokens from the others."
        )
        documents = len(batch.unpadded.cu_seqlens) - 1
        facts = {
            "documents": f"{documents:,}",
            "padding": f"{1 - real / max(batch.tokens.numel(), 1):.1%} of the tokens",
        }
        return lede, facts

    def sample(self, batch: TextBatch, i: int) -> Card:
        """The tokens of a row, with the hidden ones marked."""
        tokens, length = batch.tokens[i].cpu().numpy(), int(batch.lengths[i])
        documents = int(batch.documents[i].max()) + 1
        words = f"{plural(length, 'token')}, {plural(documents, 'document')}"
        facts: tuple[Facts, ...] = ()
        states = np.zeros(self.length, np.int64)
        keys: tuple[tuple[str, str], ...] = ()
        if batch.mask is not None:
            states, keys = self._states(batch, i)
            facts = (Facts(items=(*mask_facts(_counts(batch, i)), *_special(batch, i))),)
        shown = tokens if batch.mask is None else batch.inputs[i].cpu().numpy()
        names = np.array(["", *(name for name, _ in REPLACED)])[states]
        shown = np.where(names == "random", shown, tokens)
        return Card(
            key=batch.key[i],
            words=words,
            label=label_words(int(batch.label[i]), self.label_names),
            facts=facts,
            figures=(self._words(batch, i, shown, names, keys),),
            missing=() if batch.mask else ("The loader was built without a mask.",),
        )

    def compared(self, batch: TextBatch, made: TextBatch, i: int) -> Card:
        """The tokens of a row, with those that the encoder was not shown, and the model's predictions for them."""
        if batch.mask is None:
            raise ValueError("a prediction is of hidden tokens, but the batch has no mask; give the loader mask=")
        hidden = batch.mask.masked[i].cpu().numpy()
        before, after = batch.tokens[i].cpu().numpy(), made.tokens[i].cpu().numpy()
        states = np.where(hidden, np.where(before == after, "same", "random"), "")
        asked = np.where(hidden, "gone", "")
        figures = (
            self._words(batch, i, before, asked, HIDDEN, title="The text"),
            self._words(batch, i, np.where(hidden, after, before), states, PREDICTED, title="With the predictions"),
        )
        return Card(key=batch.key[i], words="", figures=figures)

    def _states(self, batch: TextBatch, i: int) -> tuple[npt.NDArray[np.int64], tuple[tuple[str, str], ...]]:
        """0 for a token that is seen, else 1 + its place in `REPLACED`; and the names of what occurs."""
        assert batch.mask is not None
        hidden = batch.mask.masked[i].cpu().numpy()
        if batch.mask.tokens is None:
            return hidden.astype(np.int64), HIDDEN
        before, after = batch.tokens[i].cpu().numpy(), batch.mask.tokens[i].cpu().numpy()
        same, gone = after == before, after == self.mask_id
        return np.where(hidden, np.where(gone, 1, np.where(same, 3, 2)), 0), REPLACED

    def _words(
        self,
        batch: TextBatch,
        i: int,
        tokens: npt.NDArray[np.integer],
        states: npt.NDArray[np.str_],
        keys: tuple[tuple[str, str], ...],
        title: str = "",
    ) -> WordPieces:
        words, length = batch.words[i].cpu().numpy(), int(batch.lengths[i])
        pieces = []
        for place in range(length):
            begins = place == 0 or words[place] < 0 or words[place] != words[place - 1]
            text, spaced = self._piece(int(tokens[place]), begins=begins)
            state = str(states[place]) or ("special" if words[place] < 0 else "")
            pieces.append((text, state, spaced))
        return WordPieces(pieces=tuple(pieces), title=title, keys=keys)

    def _piece(self, token: int, *, begins: bool) -> tuple[str, bool]:
        """A token as text, and whether a space stands before it."""
        tokenizer = tokenizer_of(self.tokenizer)
        raw = tokenizer.id_to_token(token) or f"<{token}>"
        if raw.startswith(WITHIN) and len(raw) > len(WITHIN):
            return raw.removeprefix(WITHIN), False
        text = tokenizer.decode([token], skip_special_tokens=False)
        if text != raw and text.strip():  # of bytes, which say themselves where spaces are
            return text.strip(), text[0].isspace()
        return text.strip() or raw, begins and raw[0].isalnum()


def _counts(batch: TextBatch, i: int) -> MaskCounts:
    """The counts of a row's mask; padding is no token."""
    assert batch.mask is not None
    hidden = int(batch.mask.masked[i].sum())
    length, real = int(batch.lengths[i]), batch.mask.target_valid[i]
    weight = batch.mask.weight[i][real]
    return MaskCounts(
        tokens=length,
        visible=length - hidden,
        mask_tokens=0,
        targets=int(real.sum()),
        weightless_targets=int((weight == 0).sum()),
    )


def _special(batch: TextBatch, i: int) -> tuple[Fact, ...]:
    """How many tokens are special."""
    special = int(((batch.words[i] < 0) & (batch.documents[i] >= 0)).sum())
    return (Fact(name="Special tokens", value=f"{special:,}", of=f"of {int(batch.lengths[i]):,}"),)
