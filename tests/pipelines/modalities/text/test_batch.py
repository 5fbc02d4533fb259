"""Rows of texts, padded and without padding."""

import numpy as np
import pytest
import torch

from maskstream.pipelines import masks
from maskstream.pipelines.masks import Cues, Draw, TokenGrid
from maskstream.pipelines.modalities.text.batch import build_text_batch

DOCUMENTS = np.array([[0, 0, 0, 1, 1, -1], [0, 0, -1, -1, -1, -1], [0, 1, 2, 2, 2, 2]], np.int32)
TOKENS = np.arange(18, dtype=np.int32).reshape(3, 6)


def batch(**more):
    words = np.where(DOCUMENTS >= 0, np.arange(6), -1).astype(np.int32)
    return build_text_batch(tokens=TOKENS, documents=DOCUMENTS, words=words, key=["a", "b", "c"], **more)


def test_the_unpadded_form_has_every_real_token_once_document_by_document():
    unpadded = batch().unpadded
    assert unpadded.tokens.tolist() == TOKENS[DOCUMENTS >= 0].tolist()
    assert unpadded.index.tolist() == np.flatnonzero(DOCUMENTS >= 0).tolist()
    assert unpadded.positions.tolist() == [0, 1, 2, 0, 1, 0, 1, 0, 0, 0, 1, 2, 3]
    assert unpadded.cu_seqlens.tolist() == [0, 3, 5, 7, 8, 9, 13]
    assert unpadded.longest == 4
    assert unpadded.gathered(batch().tokens).tolist() == unpadded.tokens.tolist()
    forms = {name: getattr(unpadded, name).dtype for name in ("tokens", "index", "positions", "cu_seqlens")}
    assert forms == {"tokens": torch.int32, "index": torch.int64, "positions": torch.int32, "cu_seqlens": torch.int32}


def test_a_row_without_padding_ends_where_the_next_begins():
    full = np.zeros((2, 4), np.int32)
    made = build_text_batch(tokens=full, documents=full, words=full, key=["a", "b"])
    assert made.unpadded.cu_seqlens.tolist() == [0, 4, 8]
    assert made.lengths.tolist() == [4, 4]


def test_what_follows_from_the_rows():
    made = batch()
    assert made.lengths.tolist() == [5, 2, 6]
    assert made.valid.sum(1).tolist() == [5, 2, 6]
    assert made.label.tolist() == [-1, -1, -1]
    assert made.inputs.tolist() == TOKENS.tolist()
    assert len(made) == 3


def test_the_encoder_reads_the_replaced_ids():
    mask = masks.Padded(mask=masks.Replace(mask=masks.Tokens(ratio=0.5), mask_id=99, vocabulary=100, keep=0, random=0))
    grid = TokenGrid(axes=("token",), shape=(6,), patch=(1,))
    words = np.where(DOCUMENTS >= 0, np.arange(6), -2).astype(np.int64)
    draws = [
        Draw(rng=np.random.default_rng(row), cues=Cues(words=words[row], tokens=TOKENS[row].astype(np.int64)))
        for row in range(3)
    ]
    drawn = mask.draw(grid, draws)
    made = batch(mask=drawn)
    assert (made.inputs == 99).sum(1).tolist() == [2, 1, 3]
    assert made.inputs.dtype == torch.int64


def test_it_moves_as_a_whole():
    moved = batch().to("meta")
    assert moved.unpadded.tokens.device.type == moved.tokens.device.type == "meta"
    assert moved.unpadded.longest == 4


@pytest.mark.parametrize("length", [0, 3])
def test_rows_of_padding_alone(length):
    empty = np.full((2, length), -1, np.int32)
    made = build_text_batch(tokens=np.zeros_like(empty), documents=empty, words=empty, key=["a", "b"])
    assert made.unpadded.cu_seqlens.tolist() == [0]
    assert made.unpadded.longest == 0
