"""Collate functions give the masks of the samples' keys, in the form and order that models of transformers take."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import (
    SPECIAL,
    Collate,
    Cues,
    MotionGuided,
    Padded,
    Random,
    Replace,
    TextCollate,
    TokenGrid,
    Tokens,
    Tube,
    WholeWords,
)

from .texts import token_grid

GRID = TokenGrid.video(4, 32, 32, patch=8)
SPECTROGRAM = TokenGrid(axes=("time", "freq"), shape=(5, 3), patch=(4, 2))


def samples(*shape: int, name: str = "pixel_values") -> list[dict]:
    return [{"__key__": f"s{n}", name: torch.full(shape, float(n + 1)), "label": n} for n in range(3)]


def test_masks_are_those_of_the_keys_in_any_batch() -> None:
    mask = Tube(ratio=0.75)
    collate = Collate(mask=mask, grid=GRID, key="__key__", seed=3, epoch=2)
    batch = pickle.loads(pickle.dumps(collate))(samples(4, 3, 32, 32))
    assert list(batch) == ["pixel_values", "label", "bool_masked_pos"]
    assert batch["label"].tolist() == [0, 1, 2]
    assert torch.equal(batch["bool_masked_pos"], mask.of_keys(GRID, ["s0", "s1", "s2"], seed=3, epoch=2).masked)
    for row in range(3):
        alone = collate(samples(4, 3, 32, 32)[row : row + 1])["bool_masked_pos"]
        assert torch.equal(alone[0], batch["bool_masked_pos"][row])
        assert torch.equal(alone, mask(GRID, key=f"s{row}", seed=3, epoch=2).masked)
    other = replace(collate, epoch=3)(samples(4, 3, 32, 32))
    assert not torch.equal(other["bool_masked_pos"], batch["bool_masked_pos"])


def test_noise_sorts_visible_tokens_first() -> None:
    collate = Collate(mask=Random(ratio=0.75), grid=GRID, gives="noise", key="__key__")
    noise = collate(samples(2))["noise"]
    masked = replace(collate, gives="bool_masked_pos")(samples(2))["bool_masked_pos"]
    assert noise.dtype == torch.float32
    kept = torch.argsort(noise, dim=1)[:, : int((~masked[0]).sum())]
    assert not masked.gather(1, kept).any()


def test_hidden_patches_of_spectrograms_are_filled_and_numbered_frequencies_first() -> None:
    collate = Collate(mask=Random(ratio=0.6), grid=SPECTROGRAM, gives="input_values", key="__key__", fill=-7.0)
    batch = collate(samples(20, 6, name="input_values"))
    places = batch["bool_masked_pos"].view(3, 3, 5)
    for n in range(3):
        for freq in range(3):
            for time in range(5):
                patch = batch["input_values"][n, 4 * time : 4 * time + 4, 2 * freq : 2 * freq + 2]
                assert (patch == (-7.0 if places[n, freq, time] else n + 1)).all()
    assert places.flatten(1).sum(1).tolist() == [9, 9, 9]
    with pytest.raises(ValueError, match=r"floats of shape \(samples, 20, 6\), got \(3, 20, 7\)"):
        collate(samples(20, 7, name="input_values"))
    with pytest.raises(ValueError, match=r'gives="input_values" needs a grid with the axes'):
        Collate(mask=Tube(), grid=GRID, gives="input_values")


def texts() -> list[dict]:
    rng = np.random.default_rng(0)
    found = []
    for n, length in enumerate((9, 14, 30)):
        words = [None, *(np.arange(length - 2) // 2).tolist(), None]
        special = [int(word is None) for word in words]
        ids = rng.integers(10, 90, length).tolist()
        found.append({"key": f"t{n}", "input_ids": ids, "special_tokens_mask": special, "word_ids": words})
    return found


@pytest.mark.parametrize("whole", [False, True])
def test_texts_are_hidden_as_the_mask_does_and_padded(whole: bool) -> None:
    mask = Replace(mask=WholeWords(ratio=0.4) if whole else Tokens(ratio=0.4), mask_id=5, vocabulary=100)
    rows = texts() if whole else [{k: v for k, v in one.items() if k != "word_ids"} for one in texts()]
    batch = TextCollate(mask=mask, pad_id=0, seed=1)(rows)
    assert {value.shape for value in batch.values()} == {(3, 30)}
    for n, row in enumerate(rows):
        ids = np.array(row["input_ids"])
        special = np.array(row["special_tokens_mask"]) == 1
        words = np.where(special, SPECIAL, (np.arange(len(ids)) - 1) // 2 if whole else np.arange(len(ids)))
        alone = Padded(mask=mask)(token_grid(len(ids)), key=f"t{n}", seed=1, cues=Cues(words=words, tokens=ids))
        assert torch.equal(batch["input_ids"][n, : len(ids)], alone.tokens[0])
        hidden = batch["labels"][n, : len(ids)] != -100
        assert torch.equal(hidden, alone.masked[0])
        assert torch.equal(batch["labels"][n, : len(ids)][hidden], torch.from_numpy(ids)[hidden])
        assert not hidden[torch.from_numpy(special)].any()
        assert batch["attention_mask"][n].tolist() == [1] * len(ids) + [0] * (30 - len(ids))
        assert (batch["labels"][n, len(ids) :] == -100).all()


def test_what_cannot_be_collated_is_said() -> None:
    with pytest.raises(
        ValueError, match="has no 'key', from which its mask is drawn; it has __key__, pixel_values, label"
    ):
        Collate(mask=Tube(), grid=GRID)(samples(2))
    with pytest.raises(ValueError, match="gives='ids': expected"):
        Collate(mask=Tube(), grid=GRID, gives="ids")
    with pytest.raises(ValueError, match="MotionGuided reads"):
        Collate(mask=MotionGuided(), grid=GRID, key="__key__")(samples(2))
    with pytest.raises(ValueError, match="returns no token ids; wrap it in masks"):
        TextCollate(mask=Tokens(), pad_id=0)(texts())
    with pytest.raises(ValueError, match="has neither word_ids nor special_tokens_mask"):
        TextCollate(mask=Tokens(), pad_id=0)([{"key": "a", "input_ids": [1, 2]}])
