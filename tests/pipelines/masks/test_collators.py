"""Masks of text against Hugging Face's collators: what is hidden, how often, and what it becomes."""

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import SPECIAL, Cues, Draw, Mask, Padded, Replace, Tokens, WholeWords
from maskstream.pipelines.stream.rng import Place

from .texts import token_grid

SAMPLES, LENGTH, WORDS = 1500, 34, 200


@pytest.fixture(scope="module")
def tokenizer():
    import tokenizers

    transformers = pytest.importorskip("transformers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = [*special, *(f"w{i}" for i in range(WORDS)), *(f"##{i}" for i in range(10))]
    model = tokenizers.models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@pytest.fixture(scope="module")
def texts(tokenizer):
    """Ids and words, int64 (SAMPLES, LENGTH), and offsets in a text whose words are one character apart, (.., 2)."""
    rng = np.random.default_rng(0)
    joined = rng.random((SAMPLES, LENGTH)) < 0.4
    joined[:, [0, 1, -1]] = False
    ids = np.where(joined, 5 + WORDS + rng.integers(10, size=joined.shape), 5 + rng.integers(WORDS, size=joined.shape))
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    words = np.cumsum(~joined, axis=1)
    words[:, [0, -1]] = SPECIAL
    start = np.cumsum(1 + ~joined, axis=1)
    return ids, words, np.stack([start, start + 1], axis=2)


def published(tokenizer, texts, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden places, bool, and the ids that go in, from DataCollatorForLanguageModeling."""
    from transformers import DataCollatorForLanguageModeling

    ids, words, offsets = texts
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, seed=0, return_tensors="pt", **settings)
    rows = [
        {"input_ids": i.tolist(), "special_tokens_mask": (w < 0).astype(int).tolist(), "offset_mapping": o.tolist()}
        for i, w, o in zip(ids, words, offsets, strict=True)
    ]
    batch = collator(rows)
    return batch["labels"] != -100, batch["input_ids"]


def ours(tokenizer, texts, mask: Mask, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    ids, words, _ = texts
    draws = [
        Draw.of(0, 0, str(i), 0, Place(), Cues(words=w, tokens=t))
        for i, (w, t) in enumerate(zip(words, ids, strict=True))
    ]
    whole = Replace(mask=mask, mask_id=tokenizer.mask_token_id, vocabulary=len(tokenizer), **settings)
    batch = Padded(mask=whole).draw(token_grid(LENGTH), draws)
    return batch.masked, batch.tokens


def check_same_rate(a: torch.Tensor, b: torch.Tensor) -> None:
    """Two independent shares of as many events are the same within 4.5 standard deviations."""
    share = float(a.double().mean() + b.double().mean()) / 2
    assert abs(float(a.double().mean() - b.double().mean())) <= 4.5 * np.sqrt(2 * share * (1 - share) / a.numel())


def shares(tokenizer, texts, hidden: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    original = torch.from_numpy(texts[0])
    assert torch.equal(tokens[~hidden], original[~hidden])
    mask = (tokens == tokenizer.mask_token_id) & hidden
    return {"hidden": hidden, "mask": mask, "kept": hidden & (tokens == original), "changed": tokens != original}


def test_tokens_as_mosaicbert_hides_them(tokenizer, texts) -> None:
    theirs = shares(tokenizer, texts, *published(tokenizer, texts, mlm_probability=0.3))
    mine = shares(tokenizer, texts, *ours(tokenizer, texts, Tokens(ratio=0.3, each=True)))
    for name in theirs:
        check_same_rate(theirs[name], mine[name])
    special = texts[1] < 0
    assert not mine["hidden"].numpy()[special].any()
    assert not theirs["hidden"].numpy()[special].any()
    counts = [m["hidden"].sum(1).double() for m in (theirs, mine)]
    assert abs(counts[0].var() - counts[1].var()) < 1.2  # both binomial: 32 * 0.3 * 0.7 = 6.72
    assert abs(counts[1].var() - 6.72) < 0.9


def test_whole_words_as_transformers_5_hides_them(tokenizer, texts) -> None:
    theirs, their_ids = published(
        tokenizer, texts, whole_word_mask=True, mlm_probability=0.3, mask_replace_prob=1.0, random_replace_prob=0.0
    )
    mine, my_ids = ours(tokenizer, texts, WholeWords(ratio=0.3, each=True), keep=0.0, random=0.0)
    words = torch.from_numpy(texts[1])
    same_word = (words[:, 1:] == words[:, :-1]) & (words[:, 1:] >= 0)
    for hidden, ids in ((theirs, their_ids), (mine, my_ids)):
        assert (hidden[:, 1:] == hidden[:, :-1])[same_word].all()
        assert (ids[hidden] == tokenizer.mask_token_id).all()
    first = (words[:, 1:] != words[:, :-1]) & (words[:, 1:] >= 0)
    check_same_rate(theirs[:, 1:][first], mine[:, 1:][first])
    check_same_rate(theirs[:, 1:][same_word], mine[:, 1:][same_word])
