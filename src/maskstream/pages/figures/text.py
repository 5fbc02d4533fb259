"""Figures of texts, and of images with texts: the tokens of a row with hidden ones marked, the visible part of the
image, and a model's predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.modalities.image_text.batch import ImageTextBatch
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.preprocess.encode.text.tokenizer import load_tokenizer
from maskstream.shards.arrays import Bools

from .card import Card, Fact, Facts, Picture, WordPieces, join_picture_row
from .figures import MaskRow, received, sample_card
from .image import ImageFigures
from .pictures import encode_data_uri, make_darker, picture
from .words import plural

Keys = tuple[tuple[str, str], ...]

HIDDEN = (("gone", "hidden"),)
REPLACED = (("gone", "hidden"), ("random", "a random token"), ("same", "unchanged, but predicted"))
PREDICTED = (("same", "predicted"), ("random", "predicted, and replaced by another token"))
WITHIN = "##"


def name_states(
    hidden: Bools, tokens: npt.NDArray[np.integer], read: npt.NDArray[np.integer] | None, mask_id: int | None
) -> tuple[npt.NDArray[np.str_], Keys]:
    """Return the state of each token, "" for visible ones, and the names of the states.

    Args:
        hidden: Hidden tokens, bool (N,).
        tokens: Ids of the tokens.
        read: Ids that the encoder reads; None if hidden tokens are all masked.
        mask_id: Id of [MASK].
    """
    if read is None:
        return np.where(hidden, "gone", ""), HIDDEN
    return np.select([~hidden, read == mask_id, read == tokens], ["", "gone", "same"], "random"), REPLACED


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFigures:
    """Figures of rows of tokens.

    Attributes:
        length: Tokens of a row.
        tokenizer: Contents of tokenizer.json.
        mask_id: Id of [MASK].
        packed: Whether rows contain several documents.
        label_names: Names of the labels.
    """

    length: int
    tokenizer: bytes
    mask_id: int | None
    packed: bool
    label_names: Sequence[str] = ()

    def about(self, batch: TextBatch) -> tuple[str, dict[str, str]]:
        """Describe the rows."""
        real, held = int(batch.lengths.sum()), "one document, or a window of it"
        if self.packed:
            held = "several documents, one after another"
        lede = (
            f"{received(len(batch), 'row', f' of {self.length:,} tokens')}. A row contains {held}. The model "
            "predicts the hidden tokens from the others."
        )
        return lede, {
            "documents": f"{len(batch.unpadded.cu_seqlens) - 1:,}",
            "padding": f"{1 - real / max(batch.tokens.numel(), 1):.1%} of the tokens",
        }

    def sample(self, batch: TextBatch, i: int) -> Card:
        """Draw the tokens of a row, with hidden ones marked.

        Args:
            batch: The batch.
            i: Row.
        """
        tokens, length = batch.tokens[i].cpu().numpy(), int(batch.lengths[i])
        states, keys, mask, special = np.full(self.length, "", dtype="U8"), Keys(), None, []
        if batch.mask is not None:
            mask, given = MaskRow.of(batch.mask, i, slice(length)), batch.mask.tokens
            after = None if given is None else given[i].cpu().numpy()
            states, keys = name_states(batch.mask.masked[i].cpu().numpy(), tokens, after, self.mask_id)
            count = int(((batch.words[i] < 0) & (batch.documents[i] >= 0)).sum())
            special = [Fact(name="Special tokens", value=f"{count:,}", of=f"of {length:,}")]
        read = tokens if batch.mask is None else batch.inputs[i].cpu().numpy()
        figure = self._words(batch, i, np.where(states == "random", read, tokens), states, keys)
        words = f"{plural(length, 'token')}, {plural(int(batch.documents[i].max()) + 1, 'document')}"
        return sample_card(batch, i, words, (figure,), {"": mask}, names=self.label_names, more=special)

    def compared(self, batch: TextBatch, made: TextBatch, i: int) -> Card:
        """Draw the tokens of a row, with hidden ones marked, and the model's predictions for them.

        Args:
            batch: The original batch.
            made: The predicted batch.
            i: Row.
        """
        if batch.mask is None:
            raise ValueError("a prediction needs hidden tokens, but the batch has no mask; pass mask= to the loader")
        hidden = batch.mask.masked[i].cpu().numpy()
        before, after = batch.tokens[i].cpu().numpy(), made.tokens[i].cpu().numpy()
        states = np.where(hidden, np.where(before == after, "same", "random"), "")
        asked = np.where(hidden, "gone", "")
        figures = (
            self._words(batch, i, before, asked, HIDDEN, title="The text"),
            self._words(batch, i, np.where(hidden, after, before), states, PREDICTED, title="With the predictions"),
        )
        return Card(key=batch.key[i], words="", figures=figures)

    def _words(
        self,
        batch: TextBatch,
        i: int,
        tokens: npt.NDArray[np.integer],
        states: npt.NDArray[np.str_],
        keys: Keys,
        title: str = "",
    ) -> WordPieces:
        words, length = batch.words[i].cpu().numpy(), int(batch.lengths[i])
        pieces = []
        for place in range(length):
            begins = place == 0 or words[place] < 0 or words[place] != words[place - 1]
            text, spaced = self._read_piece(int(tokens[place]), begins=begins)
            state = str(states[place]) or ("special" if words[place] < 0 else "")
            pieces.append((text, state, spaced))
        return WordPieces(pieces=tuple(pieces), title=title, keys=keys)

    def _read_piece(self, token: int, *, begins: bool) -> tuple[str, bool]:
        """Return a token as text, and whether a space precedes it."""
        tokenizer = load_tokenizer(self.tokenizer)
        raw = tokenizer.id_to_token(token) or f"<{token}>"
        if raw.startswith(WITHIN) and len(raw) > len(WITHIN):
            return raw.removeprefix(WITHIN), False
        text = tokenizer.decode([token], skip_special_tokens=False)
        if text != raw and text.strip():  # tokens of bytes include their spaces
            return text.strip(), text[0].isspace()
        return text.strip() or raw, begins and raw[0].isalnum()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextFigures:
    """Figures of images and rows of text, drawn by the figures of each."""

    image: ImageFigures
    text: TextFigures

    def about(self, batch: ImageTextBatch) -> tuple[str, dict[str, str]]:
        """Describe the images, the rows, and their tokens."""
        (h, w), (ph, pw) = self.image.grid.shape, self.image.grid.patch
        real = int(batch.text.valid.sum())
        lede = (
            f"{received(len(batch), 'image', ' with text,')}: cropped, resized, divided into tokens, and each "
            f"part masked separately. A token of an image is a patch of {ph} x {pw} pixels; a token of a text is "
            "a word or part of a word."
        )
        return lede, {
            "size": f"{h * ph} x {w * pw} pixels",
            "tokens": f"of an image {h} x {w}, of a row of text {batch.text.tokens.shape[1]:,}",
            "padding": f"{1 - real / max(batch.text.tokens.numel(), 1):.1%} of the tokens of texts",
        }

    def sample(self, batch: ImageTextBatch, i: int) -> Card:
        """Draw the image and its row of text, with their visible parts, and the box of a phrase.

        Args:
            batch: The batch.
            i: Row.
        """
        seen, read = self.image.sample(batch.pictures, i), self.text.sample(batch.texts, i)
        parts = (("Image", seen, batch.image_mask), ("Text", read, batch.text_mask))
        facts = [
            Facts(title=title, items=one.facts[0].items) for title, one, mask in parts if mask is not None and one.facts
        ]
        missing = [f"The loader was built without a mask of the {title.lower()}." for title, _, m in parts if m is None]
        figures = list(seen.figures)
        if not batch.box[i].isnan().any():
            items, words = [_draw_box(batch, i)], "The box it refers to."
            if batch.segment is not None and batch.segment[i].any():
                items.append(_draw_segment(batch, batch.segment, i))
                words = "The box and the pixels it refers to."
            figures.append(join_picture_row(*items, title="The phrase", words=words))
        return Card(
            key=batch.key[i],
            words=f"{seen.words}; {read.words.partition(',')[0]}",
            label=seen.label,
            facts=tuple(facts),
            figures=(*figures, *read.figures),
            missing=tuple(missing),
            icon=seen.icon,
        )

    def compared(self, batch: ImageTextBatch, made: ImageTextBatch, i: int) -> Card:
        """Draw the original image and text, and both with predictions; for an unmasked image, the object of its phrase
        and the model's result.

        Args:
            batch: The original batch.
            made: The predicted batch.
            i: Row.
        """
        if batch.image_mask is None and not made.box[i].isnan().any():
            return self._draw_referred(batch, made, i)
        image = self.image.compared(batch.pictures, made.pictures, i)
        text = self.text.compared(batch.texts, made.texts, i)
        return replace(image, figures=(*image.figures, *text.figures))

    def _draw_referred(self, batch: ImageTextBatch, made: ImageTextBatch, i: int) -> Card:
        """Draw the object of a phrase and the model's result: boxes, and segments if there are any."""
        made = replace(made, image=batch.image)
        items = [_draw_box(batch, i, "the phrase's box")] if not batch.box[i].isnan().any() else []
        items.append(_draw_box(made, i, "the predicted box"))
        if batch.segment is not None and batch.segment[i].any():
            items.append(_draw_segment(batch, batch.segment, i, "its segment"))
        if made.segment is not None:
            items.append(_draw_segment(made, made.segment, i, "the predicted segment"))
        phrase = self.text.sample(replace(batch, text_mask=None).texts, i).figures
        pictures = join_picture_row(*items, across=2 if len(items) > 3 else 0)
        return Card(key=batch.key[i], words="", figures=(*phrase, pictures))


def _draw_box(batch: ImageTextBatch, i: int, caption: str = "") -> Picture:
    """Draw the box of a row over its image."""
    height, width = batch.image.shape[1:3]
    x0, y0, x1, y1 = (batch.box[i].cpu() * torch.tensor((width, height) * 2)).round(decimals=1).tolist()
    return Picture(
        uri=encode_data_uri(batch.image[i].cpu().numpy()),
        alt=f"{caption or 'box'} in {batch.key[i]}",
        outline=f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}z",
        columns=width,
        rows=height,
        caption=caption,
        marked=True,
    )


def _draw_segment(batch: ImageTextBatch, segment: torch.Tensor, i: int, caption: str = "") -> Picture:
    """Draw the image of a row, dark except for its segment."""
    pixels = make_darker(batch.image[i].cpu().numpy(), ~segment[i].cpu().numpy())
    return picture(pixels, f"{caption or 'segment'} in {batch.key[i]}", caption)
