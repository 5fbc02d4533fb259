"""Masks of text: counts of the published rules, whole words, what replaces tokens, the rows of RetroMAE's decoder."""

import random
from dataclasses import dataclass, replace
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskstream.pipelines.masks import (
    MASKS,
    PADDING,
    SPECIAL,
    ByClass,
    ByView,
    Cues,
    DecoderRows,
    Draw,
    Mask,
    MaskBatch,
    MaskedDiffusion,
    Padded,
    Replace,
    ScoredFirst,
    Stratified,
    TextMaskBatch,
    Tokens,
    Uniform,
    UniformCount,
    WholeWords,
    class_weights,
)
from maskstream.pipelines.masks.core import TextDraws
from maskstream.pipelines.masks.text.replace import TextMaps
from maskstream.pipelines.masks.text.words import TextWords
from maskstream.pipelines.stream.rng import Place, sample_keys

from .texts import groups, published_rows, shuffled, splitmix, text, token_grid, words_in_turn

MASK_ID = 103
TEXT_MASKS = [
    Tokens(),
    Tokens(each=True),
    Tokens(ratio=UniformCount()),
    WholeWords(),
    WholeWords(each=True),
    ByClass(scores=tuple(float(c) for c in range(17))),
    ScoredFirst(),
    DecoderRows(pool=8),
    MaskedDiffusion(),
    MaskedDiffusion(exact=True),
    Replace(mask=WholeWords(), mask_id=MASK_ID, vocabulary=30522),
]


def draws(cues: list[Cues], seed: int = 0, view: int = 0) -> list[Draw]:
    return [Draw.of(seed, 0, f"text {i}", view, Place(), c) for i, c in enumerate(cues)]


def texts(count: int, n: int = 40, **settings: float) -> list[Cues]:
    rng = np.random.default_rng(0)
    return [text(n, rng, padding=int(rng.integers(n // 2)), **settings) for _ in range(count)]


def first_number(rng: np.random.Generator) -> int:
    return int(rng.integers(2**64 - 1, dtype=np.uint64, endpoint=True))


def hidden_of(mask: Mask, n: int, given: list[Draw]) -> np.ndarray:
    return Padded(mask=mask).draw(token_grid(n), given).masked.numpy()


@pytest.mark.parametrize("mask", TEXT_MASKS, ids=repr)
def test_special_tokens_and_padding_are_never_hidden(mask: Mask) -> None:
    cues = texts(64)
    masked = hidden_of(mask, 40, draws(cues))
    assert not masked[np.array([c.words for c in cues]) < 0].any()
    assert masked.any()


@pytest.mark.parametrize("mask", TEXT_MASKS, ids=repr)
def test_a_text_has_one_mask_in_every_batch_and_another_in_another_view(mask: Mask) -> None:
    cues = texts(6)
    batch = Padded(mask=mask).draw(token_grid(40), draws(cues))
    apart = [Padded(mask=mask).draw(token_grid(40), [d]) for d in draws(cues)]
    for name in ("masked", "tokens", "attend"):
        if (together := getattr(batch, name, None)) is not None:
            assert torch.equal(together, torch.cat([getattr(a, name) for a in apart]))
    assert not np.array_equal(hidden_of(mask, 40, draws(cues, view=1)), batch.masked)
    assert not np.array_equal(hidden_of(mask, 40, draws(cues, seed=1)), batch.masked)


@pytest.mark.parametrize("mask", TEXT_MASKS, ids=repr)
@pytest.mark.parametrize("words", [[0], [-1], [-2], [-1, -1], [-1, 3, -1], [-2, -2, -2]], ids=str)
def test_the_smallest_texts(mask: Mask, words: list[int]) -> None:
    n = len(words)
    cues = Cues(
        words=np.array(words), tokens=np.arange(n), classes=np.full(n, -1), scores=np.zeros(n, dtype=np.float32)
    )
    hidden = [hidden_of(mask, n, draws([cues], seed))[0] for seed in range(40)]
    assert all(not h[np.array(words) < 0].any() for h in hidden)
    if max(words) >= 0:
        assert any(h.any() for h in hidden)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=30), st.integers(0, 60), st.integers(0, 2**32))
def test_words_are_taken_as_the_published_loop_takes_them(lengths: list[int], count: int, seed: int) -> None:
    ids = [word for word, length in enumerate(lengths) for _ in range(length)]
    if not ids:
        return
    given_words = TextWords.of(token_grid(len(ids)), draws([Cues(words=np.array(ids))])[0], by="a test")
    hidden = given_words.spread(given_words.taken(5, count, np.random.default_rng(seed)))
    numbers = splitmix(first_number(np.random.default_rng(seed)))
    order = groups(ids)
    for row in hidden:
        assert set(np.flatnonzero(row).tolist()) == words_in_turn(shuffled(order, numbers), count)


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 60), st.integers(0, 20), st.integers(0, 1000), st.integers(0, 2**32))
def test_counts(n: int, padding: int, thousandths: int, seed: int) -> None:
    padding, ratio = min(padding, n - 3), thousandths / 1000
    cues = text(n, np.random.default_rng(seed), padding=padding)
    maskable, length = int((cues.words >= 0).sum()), n - padding
    number = min(max(1, round(thousandths * length / 1000)), maskable) if thousandths else 0
    given = draws([cues], seed)
    assert hidden_of(Tokens(ratio=ratio), n, given).sum() == number
    words = hidden_of(WholeWords(ratio=ratio), n, given)[0]
    sizes = [len(g) for g in groups(cues.words.tolist()) if not words[g].any()]
    assert all(words[g].all() or not words[g].any() for g in groups(cues.words.tolist()))
    assert words.sum() <= number
    assert all(size + words.sum() > number for size in sizes)  # no word that is left would have fitted
    scored = min(max(floor(thousandths * (length - 1) / 1000 + 0.5), 1), maskable) if thousandths else 0
    assert hidden_of(ScoredFirst(ratio=ratio), n, given).sum() == scored


def test_oneref_hides_subject_and_object_first() -> None:
    cues = [replace(c, scores=np.zeros(12, dtype=np.float32)) for c in texts(200, 12, joined=0.0)]
    for i, c in enumerate(cues):
        c.scores[[1, 2]] = (2.0, 1.0) if i % 2 else (0.0, -3.0)
    cues = [c for c in cues if (c.words >= 0).sum() >= 4]
    masked = hidden_of(MASKS["oneref-text"](), 12, draws(cues))
    scored = np.array([c.scores[1] > 0 for c in cues])
    assert masked[scored][:, 1].all()
    assert masked[scored][:, 2].all()
    assert 0.2 < masked[~scored][:, 1].mean() < 0.7
    one = hidden_of(ScoredFirst(ratio=0.01), 12, draws(cues))[scored]
    assert one[:, 1].all()
    assert one.sum() == len(one)


def test_pmlm_hides_every_number_of_tokens_equally_often() -> None:
    cues = [text(10, np.random.default_rng(i)) for i in range(3000)]
    counts = np.bincount(hidden_of(Tokens(ratio=UniformCount()), 10, draws(cues)).sum(1), minlength=11)
    assert counts[0] == 0
    assert np.abs(counts[1:8] - 300).max() < 4.5 * np.sqrt(300 * 0.9)
    assert abs(counts[8] - 900) < 4.5 * np.sqrt(900 * 0.7)  # 9 and 10 of a text with 8 tokens that can be hidden
    short = Tokens(ratio=UniformCount(share=1 / 6))
    assert set(hidden_of(short, 10, draws(cues)).sum(1).tolist()) == {1, 2}


def test_masked_diffusion_hides_each_token_with_the_chance_that_it_says() -> None:
    cues = [text(60, np.random.default_rng(i)) for i in range(2000)]
    batch = Padded(mask=MaskedDiffusion()).draw(token_grid(60), draws(cues))
    assert isinstance(batch, TextMaskBatch)
    assert batch.ratio is not None
    assert batch.ratio.dtype == torch.float32
    ratio, words = batch.ratio.numpy().astype(float), np.array([c.words for c in cues])
    assert not batch.masked.numpy()[words < 0].any()
    n, hidden = (words >= 0).sum(1), batch.masked.numpy().sum(1)
    spread = (hidden - n * ratio) / np.sqrt(n * ratio * (1 - ratio))
    assert abs(spread.mean()) < 4.5 / np.sqrt(2000)
    assert abs((spread**2).mean() - 1) < 0.2
    assert 0.001 <= ratio.min() < 0.01
    assert np.abs(np.histogram(ratio, 10, (0, 1))[0] - 200).max() < 4.5 * np.sqrt(200 * 0.9)


def test_exact_masked_diffusion_hides_each_count_once_in_as_many_views_or_epochs() -> None:
    mask = MaskedDiffusion(ratio=Stratified(strata=12), exact=True)
    cues = Cues(words=np.array([SPECIAL, *range(12), SPECIAL, PADDING]))
    for name in ("view", "epoch"):
        for key in ("a", "b"):
            drawn = [
                Draw.of(0, i if name == "epoch" else 0, key, i if name == "view" else 0, Place(), cues)
                for i in range(12)
            ]
            maps = [mask.maps(token_grid(15), one) for one in drawn]
            assert sorted(int(one.hidden.sum()) for one in maps) == list(range(1, 13))
            assert all(one.ratio == np.float32(one.hidden.sum() / 12) for one in maps)


@pytest.mark.parametrize("mask", [Tokens(ratio=0.4), WholeWords(ratio=0.4), Tokens(ratio=0.4, each=True)], ids=repr)
def test_every_word_is_equally_likely(mask: Mask) -> None:
    count, n = 4000, 22
    cues = text(n, np.random.default_rng(3), joined=0.0)
    hits = hidden_of(mask, n, draws([cues] * count)).sum(0)[1:-1]
    share = hits.sum() / (count * 20)
    z = (hits - count * share) / np.sqrt(count * share * (1 - share))
    assert np.abs(z).max() < 4.5
    assert (z**2).sum() < 20 + 4.5 * np.sqrt(40)


def test_replaced_tokens() -> None:
    mask = Replace(mask=Tokens(ratio=0.5), mask_id=MASK_ID, vocabulary=500)
    cues = texts(600)
    batch = Padded(mask=mask).draw(token_grid(40), draws(cues))
    original, masked = torch.from_numpy(np.array([c.tokens for c in cues])), batch.masked
    assert mask.needs == {"words", "tokens"}
    assert batch.tokens.dtype == torch.int64
    assert torch.equal(batch.tokens[~masked], original[~masked])
    assert torch.equal(batch.masked, Padded(mask=mask.mask).draw(token_grid(40), draws(cues)).masked)
    read, n = batch.tokens[masked], int(masked.sum())
    shares = {"mask": read == MASK_ID, "kept": read == original[masked], "random": read < 500}
    for name, expected in (("mask", 0.8 + 0.1 / 500), ("kept", 0.1), ("random", 0.9)):
        assert abs(float(shares[name].double().mean()) - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n)
    ids = read[shares["random"] & ~shares["mask"]]
    assert ids.min() < 25
    assert ids.max() > 474
    none = Padded(mask=replace(mask, keep=0.0, random=0.0)).draw(token_grid(40), draws(cues))
    assert (none.tokens[none.masked] == MASK_ID).all()
    kept = Padded(mask=replace(mask, keep=1.0, random=0.0)).draw(token_grid(40), draws(cues))
    assert torch.equal(kept.tokens, original)
    assert cues[0].tokens.min() >= 1000  # the sample's own ids are left as they are


def test_class_weights_are_the_published_ones() -> None:
    scores = np.array([0.3, 1.7, -0.4, 2.2, 0.0])
    published = torch.sigmoid(2 * (torch.tensor(scores) - scores.mean()) / torch.tensor(scores).std())
    np.testing.assert_allclose(class_weights(scores), published.numpy(), rtol=1e-12)
    assert class_weights(np.full(3, 7.0)).tolist() == [0.5] * 3
    assert class_weights(np.array([7.0])).tolist() == [0.5]


def test_hard_classes_are_hidden_more_often() -> None:
    """With a number that is never reached each word is hidden with its class's weight."""
    scores = (0.0, 1.0, 2.0, 6.0)
    cues = [text(40, np.random.default_rng(i), classes=4, joined=0.0) for i in range(800)]
    masked = hidden_of(ByClass(ratio=1.0, scores=scores), 40, draws(cues))
    classes = np.array([c.classes for c in cues])
    for c, weight in enumerate(class_weights(np.array(scores))):
        hits = masked[classes == c]
        assert abs(hits.mean() - weight) < 4.5 * np.sqrt(weight * (1 - weight) / len(hits))
    few = hidden_of(ByClass(scores=scores), 40, draws(cues))
    assert set(few.sum(1).tolist()) == {6}  # words of one token: round(0.15 * 40) is reached
    untagged = [replace(c, classes=np.full(40, -1)) for c in cues]
    assert abs(hidden_of(ByClass(ratio=1.0, scores=scores), 40, draws(untagged))[:, 1:-1].mean() - 0.5) < 0.02


@pytest.mark.parametrize("padding", [0, 7])
def test_decoder_rows_are_those_of_a_plain_loop(padding: int) -> None:
    """The same numbers, drawn as the pattern draws them, through the published loops."""
    n, pool = 48, 16
    cues = text(n, np.random.default_rng(1), padding=padding)
    length, words = n - padding, groups(cues.words.tolist())
    got = DecoderRows(pool=pool).attend(token_grid(n), draws([cues])[0])
    rng = draws([cues])[0].rng
    numbers = splitmix(first_number(rng))
    masks = [words_in_turn(shuffled(words, numbers), max(1, round(length * 0.5))) for _ in range(pool)]
    picks = rng.integers(pool, size=length)
    for i in range(n):
        expected = set(range(length)) - masks[picks[i]] - {i} if i < length else {0}
        assert set(np.flatnonzero(got[i]).tolist()) == expected
    assert got[1:length, 0].all()
    assert not got[0, 0]


def test_decoder_rows_are_spread_as_published() -> None:
    cues = text(30, np.random.default_rng(2))
    words = cues.words.tolist()
    mask = DecoderRows(ratio=0.5)
    ours = np.mean([mask.attend(token_grid(30), d) for d in draws([cues] * 150)], axis=0)
    rng = random.Random(0)
    theirs = np.mean([published_rows(words, 0.5, 256, rng) for _ in range(150)], axis=0)
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 0.06
    assert abs(ours.mean() - theirs.mean()) < 0.005
    one = DecoderRows(pool=1).attend(token_grid(30), draws([cues])[0])
    assert set(one.sum(axis=0).tolist()) == {0, 29}  # all rows have the same mask, but for the diagonal


def test_decoder_rows_go_with_the_encoders_mask() -> None:
    cues = texts(3)
    inner = Replace(mask=WholeWords(), mask_id=MASK_ID, vocabulary=30522)
    batch = Padded(mask=DecoderRows(encoder=inner)).draw(token_grid(40), draws(cues))
    alone = Padded(mask=inner).draw(token_grid(40), draws(cues))
    assert torch.equal(batch.masked, alone.masked)
    assert torch.equal(batch.tokens, alone.tokens)
    assert batch.attend.shape == (3, 40, 40)
    assert batch.attend.dtype == torch.bool
    assert type(batch).concatenated([batch, batch]).attend.shape == (6, 40, 40)


def test_orders_of_words_are_uniform_and_each_rows_own() -> None:
    """Of five words of one token the two that are taken are any pair, whatever the row before took."""
    words = TextWords.of(token_grid(5), draws([Cues(words=np.arange(5))])[0], by="a test")
    taken = words.taken(20001, 2, np.random.default_rng(0))
    pairs = np.unique(taken, axis=0, return_inverse=True)[1].ravel()
    assert pairs.max() == 9
    both = np.bincount(pairs[:-1] * 10 + pairs[1:], minlength=100)
    assert ((both - 200) ** 2 / 200).sum() < 99 + 4.5 * np.sqrt(2 * 99)


def test_wrong_cues_are_refused() -> None:
    good = text(12, np.random.default_rng(0))
    for changed, mask, message in [
        ({"words": None}, WholeWords(), "WholeWords needs the mask input words"),
        ({"words": good.words[:5]}, WholeWords(), r"needs the mask input words with shape \(12,\), got \(5,\)"),
        ({"words": np.arange(12)[::-1].copy()}, WholeWords(), "word numbers that increase along the text"),
        ({"tokens": None}, Replace(mask=Tokens(), mask_id=1, vocabulary=9), "Replace needs the mask input tokens"),
        ({"classes": np.full(12, 17)}, ByClass(), "scores only for classes 0 to 16, got class 17"),
        ({"scores": None}, ScoredFirst(), "ScoredFirst needs the mask input scores"),
    ]:
        with pytest.raises(ValueError, match=message):
            mask.draw(token_grid(12), draws([replace(good, **changed)]))
    with pytest.raises(ValueError, match=r"WholeWords needs a grid with the axes \('token',\)"):
        WholeWords().hide(replace(token_grid(12), axes=("node",)), draws([good])[0])
    assert PADDING < -1


def test_only_masks_that_bring_more_give_a_text_batch() -> None:
    """The grid and what texts add survive being joined; a mix of both kinds is refused with what to do."""
    cues, grid = texts(4), token_grid(40)
    plain = Padded(mask=WholeWords()).draw(grid, draws(cues))
    assert type(plain).__name__ == "MaskBatch"
    replaced = Replace(mask=WholeWords(), mask_id=MASK_ID, vocabulary=30522)
    parts = [Padded(mask=replaced).draw(grid, [d]) for d in draws(cues)]
    whole = TextMaskBatch.concatenated([part for part in parts if isinstance(part, TextMaskBatch)])
    assert whole.grid == grid
    assert whole.to("cpu").grid == grid
    assert whole.tokens is not None
    assert whole.tokens.shape == (4, 40)
    assert whole.attend is None
    outside = Padded(mask=ByView(masks=(None, replaced)))
    with pytest.raises(ValueError, match=r"put masks\.ByView inside the mask"):
        outside.draw(grid, [*draws(cues), *draws(cues, view=1)])
    inside = Padded(mask=replace(replaced, mask=ByView(masks=(None, WholeWords()))))
    assert isinstance(inside.draw(grid, [*draws(cues), *draws(cues, view=1)]), TextMaskBatch)


def test_parts_of_two_grids_are_not_joined() -> None:
    parts = [WholeWords(ratio=0.0).draw(token_grid(n), draws(texts(2, n))) for n in (20, 20, 30)]
    assert MaskBatch.concatenated(parts[:2]).masked.shape == (4, 20)
    with pytest.raises(ValueError, match="same grid"):
        MaskBatch.concatenated([replace(p, masked=p.masked[:, :20], visible=p.visible[:, :20]) for p in parts])


def together(seed):
    """Masks of fixed ratios, which are drawn of many texts at once; ids of one, of some and of very many words."""
    ratio = st.sampled_from([0.0, 0.15, 0.3, 0.99, 1.0])
    plain = st.builds(lambda kind, ratio, each: kind(ratio=ratio, each=each), seed, ratio, st.booleans())
    shares = st.sampled_from([(0.1, 0.1), (0.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
    ids = st.sampled_from([1, 2, 3, 30522, 3_000_000_000, 2**32 - 1])
    replaced = st.builds(
        lambda mask, share, ids: Replace(mask=mask, mask_id=7, vocabulary=ids, keep=share[0], random=share[1]),
        plain,
        shares,
        ids,
    )
    diffusion = st.builds(
        lambda low: MaskedDiffusion(ratio=Uniform(low=low, high=1.0)), ratio.filter(lambda low: low < 1)
    )
    return st.one_of(plain, replaced, st.builds(lambda mask: Padded(mask=mask), replaced), diffusion)


@settings(max_examples=150)
@given(st.integers(1, 300), together(st.sampled_from([Tokens, WholeWords])), st.integers(0, 2**40))
def test_texts_that_are_drawn_together_are_those_that_are_drawn_alone(n, mask, seed):
    rng = np.random.default_rng(seed)
    keys = [f"text {i}" for i in range(4)]
    words = np.stack([text(n, rng, padding=int(rng.integers(n))).words for _ in keys])
    tokens = rng.integers(2**31 - 1, size=words.shape).astype(np.int32)
    draws = TextDraws.of(sample_keys(seed, [(3, key, 0) for key in keys], "mask"), words, tokens)
    found = mask.maps_of_texts(token_grid(n), draws)
    for key, *row, maps in zip(keys, words, tokens, found, strict=True):
        alone = mask.maps(token_grid(n), draw_of(seed, key, *row))
        assert type(maps) is type(alone)
        assert maps.hidden.tolist() == alone.hidden.tolist()
        if isinstance(alone, TextMaps):
            assert maps.ratio == alone.ratio
            assert np.array_equal(maps.tokens, alone.tokens)
            assert type(maps.tokens) is type(alone.tokens)


def draw_of(seed, key, words, tokens):
    return Draw.of(seed, 3, key, 0, Place(), Cues(words=words, tokens=tokens))


@dataclass(frozen=True, kw_only=True, slots=True)
class LastTokens(Tokens):
    def hide(self, grid, draw):
        return draw.cues.words == draw.cues.words.max()


@pytest.mark.parametrize(
    "mask",
    [
        LastTokens(),
        Tokens(ratio=UniformCount()),
        WholeWords(ratio=UniformCount()),
        MaskedDiffusion(exact=True),
        MaskedDiffusion(ratio=Uniform(low=0.0, high=1.0, scope="sample")),
        Replace(mask=Tokens()),
        Replace(mask=Tokens(), mask_id=1, vocabulary=2**32),
        Replace(mask=LastTokens(), mask_id=1, vocabulary=9),
    ],
)
def test_masks_with_draws_of_their_own_are_not_drawn_together(mask):
    row = np.zeros((1, 8), np.int64)
    draws = TextDraws.of(np.zeros((1, 2), np.uint64), row, row.astype(np.int32))
    before = draws.streams.copy()
    assert Padded(mask=mask).maps_of_texts(token_grid(8), draws) is None
    assert (draws.streams == before).all()
