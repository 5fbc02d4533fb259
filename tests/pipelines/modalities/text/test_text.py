"""The loader of texts: packed rows, windows, special tokens, cues of masks, mixtures."""

import logging
from dataclasses import fields, is_dataclass, replace
from itertools import chain, islice

import numpy as np
import pytest
import torch

from maskstream.pipelines import Loader, Split, masks, mix, text_loader
from maskstream.pipelines.modalities.text import kernels, rows
from maskstream.pipelines.modalities.text.batch import NO_CLASS
from maskstream.pipelines.modalities.text.data import TextData, with_ids
from maskstream.pipelines.modalities.text.token_scores import TokenScores
from maskstream.preprocess.versions import remove
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import TokenizerFacts
from maskstream.shards.media.npy import read_npy
from maskstream.shards.members.text import make_tokens_member
from maskstream.shards.stores.local import LocalStore

from ....with_new_checksum import renew_checksum
from ...every_modality import MODALITIES, write_split
from ...small_media import SAMPLES

LENGTH = 48
MASK = masks.Padded(mask=masks.Replace(mask=masks.WholeWords(ratio=0.3)))
TOKENS = masks.Padded(mask=masks.Tokens(ratio=0.3))
TRAITS = rows.TextRowMaker.traits


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("text", tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def stored(split):
    """The tokens, words and classes of each sample, by key."""
    manifest = Manifest.load(split)
    names = ("tokens.npy", "words.npy", "classes.npy")
    read = manifest.store.read
    return {
        manifest.key(i): [read_npy(read(*manifest.member(i, name))).astype(int) for name in names]
        for i in range(SAMPLES)
    }


def opened(split, **options):
    settings = {"length": LENGTH, "mask": MASK, "batch_size": 3, "seed": 5, "threads": 1, "device": "cpu"}
    return text_loader(split, **settings | options)


def test_packed_rows_hold_every_token_of_an_epoch_once(split, stored):
    seen = {}
    for batch in opened(split, shuffle=False):
        weight = [1.0] * len(batch) if batch.weight is None else batch.weight.tolist()
        assert (batch.label == -1).all()
        for i in np.flatnonzero(weight):
            for number in range(int(batch.documents[i].max()) + 1):
                tokens = batch.tokens[i][batch.documents[i] == number].tolist()
                assert (tokens[0], tokens[-1]) == (2, 3)
                seen.setdefault("pieces", []).append(tokens[1:-1])
    whole = sorted(chain.from_iterable(seen["pieces"]))
    assert whole == sorted(chain.from_iterable(tokens.tolist() for tokens, *_ in stored.values()))
    assert len(seen["pieces"]) >= SAMPLES


def test_pieces_are_placed_one_by_one_as_by_the_kernel(split, monkeypatch):
    manifest = Manifest.load(split)
    numbers = np.arange(len(manifest))
    count = manifest.components[rows.TOKENS].facts["n_tokens"][numbers].astype(np.int64) - 1
    places = (manifest, numbers, (rows.TOKENS, rows.WORDS), np.ones_like(count), count)
    whole = rows.place_pieces(*places)
    monkeypatch.setattr(kernels, "place_values", lambda *_: False)
    np.testing.assert_array_equal(rows.place_pieces(*places), whole)


def test_rows_are_padded_at_the_end_and_numbered(split):
    batch = next(iter(opened(split)))
    for i in range(len(batch)):
        length = int(batch.lengths[i])
        documents, words = batch.documents[i].tolist(), batch.words[i].tolist()
        assert documents[length:] == [-1] * (LENGTH - length)
        assert (np.diff(documents[:length]) >= 0).all()
        assert {*documents[:length]} == {*range(documents[length - 1] + 1)}
        own = [word for word in words if word >= 0]
        assert own[0] == 0
        assert {*np.diff(own).tolist()} <= {0, 1}
        special = batch.tokens[i][batch.words[i] < 0][: length - len(own)]
        assert {*special.tolist()} <= {2, 3}
        assert (batch.tokens[i][length:] == 0).all()
        assert (batch.classes[i][batch.words[i] < 0] == NO_CLASS).all()


def test_the_hidden_words_are_whole_and_the_ids_are_the_tokenizers(split):
    mask = masks.Padded(mask=masks.Replace(mask=masks.WholeWords(ratio=0.3), keep=0.0, random=0.0))
    batch = next(iter(opened(split, mask=mask)))
    hidden = batch.mask.masked
    assert hidden.any(1).all()
    assert not hidden[batch.words < 0].any()
    assert (batch.inputs[hidden] == 4).all()
    for i in range(len(batch)):
        words = batch.words[i]
        for word in words[hidden[i]].unique():
            assert hidden[i][words == word].all()


def test_one_document_a_row_shows_its_beginning_or_a_random_window(split, stored):
    for batch in opened(split, packing="row", length=16, shuffle=False):
        for i, key in enumerate(batch.key):
            inner = batch.tokens[i][1 : int(batch.lengths[i]) - 1].tolist()
            assert inner == stored[key][0][:14].tolist()
    starts = set()
    for batch in islice(opened(split, packing="row", length=16).repeat(), 12):
        for i, key in enumerate(batch.key):
            inner = batch.tokens[i][1:-1].tolist()
            places = [at for at in range(len(stored[key][0])) if stored[key][0][at : at + 14].tolist() == inner]
            assert places
            starts.add(places[0])
            assert batch.classes[i][1:-1].tolist() == stored[key][2][places[0] : places[0] + 14].tolist()
    assert len(starts) > 5


def test_views_share_the_text_and_differ_in_the_mask(split):
    batch = next(iter(opened(split, views=2)))
    assert len(batch) == 6
    assert (batch.tokens[::2] == batch.tokens[1::2]).all()
    assert (batch.mask.masked[::2] != batch.mask.masked[1::2]).any(1).all()


def test_fields_of_one_document_a_row(split):
    with pytest.raises(ValueError, match="so it cannot have fields"):
        opened(split, fields=("json",))
    assert opened(split, packing="row", fields=()).steps is None


def test_a_mixture_of_texts(split):
    data = TextData(length=LENGTH, mask=MASK)
    source = data.source(Split.open(split, "text", seed=5, device="cpu"))
    batch = next(iter(Loader(mix([(source, 1), (source, 2)]), batch_size=4, device="cpu", threads=1)))
    assert len(batch) == 4
    other = TextData(length=32, mask=MASK).source(Split.open(split, "text", seed=5, device="cpu"))
    with pytest.raises(ValueError, match="length: 48 and 32"):
        mix([(source, 1), (other, 1)])


def test_a_removed_document_leaves_its_row(tmp_path, caplog):
    folder = write_split("text", tmp_path)
    before = {tuple(row) for batch in opened(folder, shuffle=False, mask=None) for row in batch.tokens.tolist()}
    remove(folder, ["s3"])
    with caplog.at_level(logging.WARNING):
        loader = opened(folder, shuffle=False, mask=None)
        after = {tuple(row) for batch in loader for row in batch.tokens.tolist()}
    assert after != before
    assert loader.stats()["bad"] == 0
    tokens = read_npy(
        Manifest.load(folder, version=1).store.read(*Manifest.load(folder, version=1).member(3, "tokens.npy"))
    )
    text = " ".join(map(str, tokens.tolist()))
    assert not any(text in " ".join(map(str, row)) for row in after)


def test_a_tokenizer_that_is_another_is_refused(tmp_path):
    folder = write_split("text", tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ShardError, match="has the sha256"):
        opened(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ShardError, match=r"no tokenizer\.json"):
        opened(folder)
    facts = TokenizerFacts(sha256="", vocabulary=9).to_dict() | {"begin": 1 << 32}
    renew_checksum(folder, settings={"encoder": {"tokenizer": facts}})
    with pytest.raises(ShardError, match="describes no tokenizer"):
        opened(folder)
    renew_checksum(folder, settings={})
    with pytest.raises(ShardError, match="describes no tokenizer"):
        opened(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": masks.Random(ratio=0.5)}, "would hide padding"),
        ({"mask": masks.ScoredFirst()}, "needs scores"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TextData(**settings)


def test_the_ids_of_a_mask_are_those_of_the_tokenizer():
    facts = TokenizerFacts(sha256="", vocabulary=900, mask=4)
    assert with_ids(MASK, facts).mask.mask_id == 4
    assert with_ids(MASK, facts).mask.vocabulary == 900
    named = masks.Replace(mask=masks.Tokens(), mask_id=103, vocabulary=900)
    with pytest.raises(ValueError, match="has mask_id=103, but the tokenizer of this split has 4"):
        with_ids(named, facts)
    with pytest.raises(ValueError, match="does not have"):
        with_ids(MASK, replace(facts, mask=None))
    plain = masks.Padded(mask=masks.Tokens())
    assert with_ids(plain, facts) == plain


def test_a_mask_follows_the_scores_of_a_file_by_key(split, tmp_path):
    keys = [key for batch in opened(split, packing="row", shuffle=False) for key in batch.key]
    rng = np.random.default_rng(0)
    given = {key: rng.permutation(14).astype(np.float32) for key in keys}
    given[keys[0]][3] = np.inf
    scores = TokenScores.written(given, tmp_path / "scores.safetensors")
    mask = masks.Padded(mask=masks.Replace(mask=masks.TopScores(count=3), keep=0.0, random=0.0))
    options = {"packing": "row", "windows": False, "length": 16, "mask": mask}
    for batch in opened(split, scores=scores, **options):
        for i, key in enumerate(batch.key):
            best = np.sort(np.argsort(-given[key], kind="stable")[:3]) + 1
            assert batch.mask.masked[i].nonzero()[:, 0].tolist() == best.tolist()
            assert (batch.inputs[i][best] == 4).all()
    longer = next(
        iter(
            opened(
                split,
                scores=scores,
                **{**options, "length": 24, "mask": replace(mask, mask=masks.Replace(mask=masks.TopScores(ratio=1.0)))},
            )
        )
    )
    assert longer.mask.masked[0].nonzero()[:, 0].tolist() == list(range(1, 15))


def test_scores_are_known_by_their_contents(split, tmp_path):
    scores = TokenScores.written({"s0": np.zeros(2, np.float32)}, tmp_path / "a.safetensors")
    same = TokenScores.written({"s0": np.zeros(2, np.float32)}, tmp_path / "b.safetensors")
    assert scores.to_dict(identity=True) == same.to_dict(identity=True)
    mask = masks.Padded(mask=masks.Replace(mask=masks.TopScores()))
    chosen = {"packing": "row", "windows": False, "mask": mask}
    with pytest.raises(ValueError, match="no scores for sample"):
        list(opened(split, scores=scores, **chosen))
    with pytest.raises(ValueError, match="beginnings of samples"):
        TextData(packing="row", mask=mask, scores=scores)
    with pytest.raises(ValueError, match="needs scores"):
        TextData(**chosen)
    with pytest.raises(ValueError, match="pass one number for each token"):
        TokenScores.written({"s0": np.full(2, np.nan, np.float32)}, tmp_path / "c.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="have the checksum"):
        replace(same)
    with pytest.raises(ValueError, match="does not contain token scores"):
        TokenScores(file=str(tmp_path / "b.safetensors")).of("s0")
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        TokenScores(file=str(tmp_path / "b.safetensors"))


def test_classes_that_a_split_lacks_are_asked_for(split, tmp_path):
    assert MODALITIES["text"].component == "tokens.npy"
    manifest = Manifest.load(split)
    bare = replace(manifest, components={k: v for k, v in manifest.components.items() if k != "classes.npy"})
    open_ = replace(Split.open(split, "text", device="cpu"), manifest=bare)
    with pytest.raises(ValueError, match="--set classes="):
        TextData(mask=masks.Padded(mask=masks.ByClass())).source(open_)
    source = TextData(mask=MASK).source(open_)
    batch = next(iter(Loader(source, batch_size=2, device="cpu", threads=1)))
    assert batch.classes is None


def test_a_class_beyond_the_parts_of_speech_is_a_bad_sample(tmp_path):
    def samples(raw):
        found = MODALITIES["text"].samples(raw)
        classes = read_npy(found[3].members["classes.npy"].data)
        members = found[3].members | {"classes.npy": make_tokens_member(np.full_like(classes, 187))}
        return [*found[:3], replace(found[3], members=members), *found[4:]]

    folder = write_split("text", tmp_path, samples)
    loader = opened(folder, packing="row", shuffle=False, max_bad_fraction=0.5)
    keys = [key for batch in loader for key in batch.key]
    assert loader.stats()["bad"] == 1
    assert "s3" not in keys


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    split = write_split("text", tmp_path_factory.mktemp("damaged"))
    manifest = Manifest.load(split)
    name, offset, _ = manifest.member(5, rows.TOKENS)
    data = bytearray((split / name).read_bytes())
    data[offset + 200] ^= 1
    (split / name).write_bytes(data)
    return split


def one_by_one(rows):
    """Traits of rows that are made each by itself."""
    return replace(TRAITS.fget(rows), together=1)


@pytest.mark.parametrize("settings", [{"packing": "pack"}, {"packing": "row"}, {"packing": "row", "shuffle": False}])
@pytest.mark.parametrize("mask", [MASK, TOKENS, None])
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_made_at_once_is_made_row_by_row_too(split, damaged, monkeypatch, caplog, settings, mask, whole):
    """With compiled reads and without, and so are the samples that are bad, their counts and what is told of them."""
    folder = split if whole else damaged

    def made():
        caplog.clear()
        loader = opened(folder, **settings, mask=mask, length=20, batch_size=4, max_bad_fraction=1)
        batches = [fields_of(batch) for batch in islice(loader.repeat(), 2 * len(loader))]
        counts = {name: loader.stats()[name] for name in ("samples", "bad", "read_bytes")}
        return batches, counts, {*caplog.messages}  # batches that are made ahead repeat them

    batches, counts, told = made()
    assert (counts["bad"] > 0) == ("differ from what was written" in "".join(told)) == (not whole)
    monkeypatch.setattr(rows.TextRowMaker, "traits", property(one_by_one))
    assert made() == (batches, counts, told)
    monkeypatch.setattr(LocalStore, "read_joined", lambda *_: None)
    assert made() == (batches, counts, told)


@pytest.mark.parametrize("mask", [MASK, TOKENS, None])
@pytest.mark.parametrize("packing", ["pack", "row"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_mixture_is_made_at_once_and_row_by_row_too(split, damaged, monkeypatch, caplog, mask, packing, whole):
    """Also a mixture inside a mixture; a part with a damaged document is told of as alone."""
    other = split if whole else damaged

    def source(folder, length=20):
        data = TextData(length=length, mask=mask, packing=packing)
        return data.loader_source(Split.open(folder, "text", device="cpu", threads=1, seed=5))

    def made(mixture):
        caplog.clear()
        loader = Loader(mixture, batch_size=6, device="cpu", threads=1, max_bad_fraction=1)
        batches = [fields_of(batch) for batch in islice(loader.repeat(), 4)]
        counts = {name: loader.stats()[name] for name in ("samples", "bad", "read_bytes")}
        loader.close()
        return batches, counts, {*caplog.messages}

    one, two = source(split), source(other)
    mixtures = mix([(one, 2), (two, 1)], seed=3), mix([(mix([(one, 1), (two, 2)]), 1), (one, 1)])
    assert all(mixture.sampler.together > 1 for mixture in mixtures)
    found = [made(mixture) for mixture in mixtures]
    assert any(counts["bad"] for _, counts, _ in found) == (not whole)
    monkeypatch.setattr(rows.TextRowMaker, "traits", property(one_by_one))
    assert [made(mixture) for mixture in mixtures] == found


def fields_of(part):
    """What a batch holds, for comparison."""
    if isinstance(part, torch.Tensor):
        return [part.dtype, part.tolist()]
    if is_dataclass(part):
        return [fields_of(getattr(part, field.name)) for field in fields(part)]
    return part


@pytest.mark.parametrize("settings", [{}, {"threads": 0}, {"views": 2}, {"mask": MASK}])
def test_a_batch_is_made_at_once(split, monkeypatch, settings):
    made, fill = [], rows.TextRowMaker.fill
    monkeypatch.setattr(
        rows.TextRowMaker, "fill", lambda self, many, *rest: (made.append(len(many.plans)), fill(self, many, *rest))
    )
    loader = opened(split, **{"mask": None, "prefetch": 1} | settings)
    batches = list(islice(loader.repeat(), 2))
    assert made == [len(batch) // settings.get("views", 1) for batch in batches]
    loader.close()


def test_masks_that_follow_classes_and_the_run_are_the_same(split, monkeypatch):
    decaying = masks.Padded(mask=masks.Tokens(ratio=masks.RatioDecay(ratio=0.3), each=True))
    classes = masks.Padded(mask=masks.ByClass(ratio=0.4, scores=tuple(map(float, range(17)))))

    def made():
        return [
            [fields_of(batch) for batch in islice(opened(split, mask=mask, steps=9).repeat(), 5)]
            for mask in (decaying, classes, masks.Padded(mask=masks.Tokens(ratio=0.3, each=True)))
        ]

    at_once = made()
    monkeypatch.setattr(rows.TextRowMaker, "traits", property(one_by_one))
    assert made() == at_once


def test_rows_of_removed_documents_are_those_that_are_made_one_by_one(tmp_path, monkeypatch):
    split = write_split("text", tmp_path)
    remove(split, ["s3", "s4"])

    def made(packing):
        loader = opened(split, mask=None, packing=packing, max_bad_fraction=1)
        return [fields_of(batch) for batch in islice(loader.repeat(), 2 * len(loader))], loader.stats()["bad"]

    at_once = [made(packing) for packing in ("pack", "row")]
    monkeypatch.setattr(rows.TextRowMaker, "traits", property(one_by_one))
    assert [made(packing) for packing in ("pack", "row")] == at_once
