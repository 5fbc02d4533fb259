"""Texts of files, lines and rows as members: token ids, words and parts of speech."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskstream.preprocess import make_shards
from maskstream.preprocess.datasets.documents import jsonl
from maskstream.preprocess.encode.encoder import with_settings
from maskstream.preprocess.encode.image.encoder import ImageEncoder
from maskstream.preprocess.encode.text.encoder import TAGS, Lexicon, TextEncoder, TokenEncoder, read_document
from maskstream.preprocess.encode.text.tokenizer import Training, load_tokenizer, read_facts
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.errors import OutageError, ShardError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.shards.format.tokenizer import read_tokenizer, read_tokenizer_facts
from maskstream.shards.format.verify import verify
from maskstream.shards.media.npy import read_npy
from maskstream.shards.members.kinds import KINDS
from maskstream.shards.stores.open import open_store

STORY = "the quick brown fox jumped over lazy dogs and unbelievably old houses while rivers ran"
WORDS = STORY.split()
TEXTS = [" ".join(np.random.default_rng(i).permutation(WORDS)[: 4 + i % 8]).capitalize() + "." for i in range(40)]


def computed(text, **more):
    return Source(id="x", path=None, computed=True, meta={"text": text, **more})


def prepared(**settings):
    sources = [Source(id=f"{i}", path=None, computed=True, meta={"text": text}) for i, text in enumerate(TEXTS)]
    return TextEncoder(**settings).prepared({"val": [], "train": sources})


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """Index files in WordNet's form: lemma, part, synsets, pointers with symbols, senses, tagged senses, offset."""
    folder = tmp_path_factory.mktemp("wordnet")
    lines = {
        "noun": "  1 licence\nfox n 2 1 @ 2 1 01 02\ndog n 1 0 1 1 01\nhouse n 1 0 1 1 01\nold_man n 1 0 1 1 01\n",
        "verb": "fox v 1 0 1 0 01\njump v 1 2 @ ~ 1 1 01\n",
        "adj": "quick a 1 0 1 1 01\nlazy a 1 0 1 0 01\nold a 1 0 1 1 01\n",
        "adv": "quick r 1 0 1 0 01\n",
    }
    for name, text in lines.items():
        (folder / f"index.{name}").write_text(text)
    return folder


@pytest.mark.parametrize("algorithm", ["wordpiece", "bpe"])
def test_a_trained_tokenizer_is_the_same_bytes_in_every_process(algorithm):
    code = (
        "import sys, hashlib; from maskstream.preprocess.encode.text.tokenizer import Training; "
        f"print(hashlib.sha256(Training.parse('train:{algorithm}:400').trained(sys.stdin.read().split('|'))).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], input="|".join(TEXTS), capture_output=True, text=True)
    facts = read_facts(Training.parse(f"train:{algorithm}:400").trained(TEXTS))
    assert other.stdout.strip() == facts.sha256, other.stderr
    assert (facts.pad, facts.unknown, facts.begin, facts.end, facts.mask) == (0, 1, 2, 3, 4)


def test_a_folder_of_transformers_says_what_its_special_tokens_are_called(tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "own.json").write_bytes(
        Training.parse("train:bpe:400").trained(TEXTS).replace(b"[MASK]", b"<hide>").replace(b"[CLS]", b"<go>")
    )
    names = {"mask_token": "<hide>", "bos_token": "<go>", "pad_token": "[PAD]"}
    folder = tmp_path / "theirs"
    transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "own.json"), **names).save_pretrained(folder)
    facts = prepared(tokenizer=str(folder)).tokenizer
    assert (facts.pad, facts.unknown, facts.begin, facts.end, facts.mask) == (0, 1, 2, 3, 4)
    alone = read_facts((folder / "tokenizer.json").read_bytes())
    assert (alone.begin, alone.mask) == (None, None)
    (folder / "tokenizer_config.json").write_text("[")
    with pytest.raises(ValueError, match=r"tokenizer_config.json is damaged"):
        prepared(tokenizer=str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer.json; transformers' AutoTokenizer"):
        prepared(tokenizer=str(folder))


def test_word_pieces_are_those_of_bert():
    tokenizer = load_tokenizer(Training.parse("train:wordpiece:400").trained(TEXTS))
    assert tokenizer.encode("The Quick DOGS.", add_special_tokens=False).tokens == ["the", "quick", "dogs", "."]
    pieces = tokenizer.encode("quickdogs", add_special_tokens=False).tokens
    assert pieces[0] == "quick"
    assert all(piece.startswith("##") for piece in pieces[1:])
    assert tokenizer.encode("\N{SNOWMAN}", add_special_tokens=False).tokens == ["[UNK]"]
    assert "[MASK]" not in tokenizer.encode("a [MASK] b", add_special_tokens=False).tokens
    assert tokenizer.decode(tokenizer.encode("The lazy fox.").ids) == "the lazy fox."


@pytest.mark.parametrize("algorithm", ["wordpiece", "bpe"])
def test_the_members_of_a_text(algorithm):
    encoder = prepared(tokenizer=f"train:{algorithm}:400")
    made = encoder.encode(computed("Foxes jumped. Unbelievably.", page=3, label="x"))
    assert [*made.members] == ["txt", "tokens.npy", "words.npy"]
    assert made.members["txt"].data.decode() == "Foxes jumped. Unbelievably."
    assert made.meta == {"page": 3}
    tokens, words = (read_npy(made.members[name].data) for name in ("tokens.npy", "words.npy"))
    assert tokens.shape == words.shape == (made.members["tokens.npy"].facts["n_tokens"],)
    assert tokens.dtype.kind == words.dtype.kind == "u"
    tokenizer = load_tokenizer(encoder.attached["tokenizer.json"])
    parts = [tokenizer.decode(tokens[words == n].tolist()).strip().lower() for n in range(words.max() + 1)]
    assert parts == ["foxes", "jumped", ".", "unbelievably", "."]
    for member in made.members.values():
        assert list(KINDS[member.kind].check(member)) == []


def test_the_class_of_each_word(wordnet):
    encoder = prepared(classes=str(wordnet))
    text = "The lazy Foxes jumped over 2 houses, unbelievably quick Zorro!"
    made = encoder.encode(computed(text))
    words, classes = (read_npy(made.members[name].data) for name in ("words.npy", "classes.npy"))
    found = [TAGS[classes[words == n][0]] for n in range(words.max() + 1)]
    wanted = "DET ADJ NOUN VERB ADP NUM NOUN PUNCT ADV ADJ PROPN PUNCT"
    assert found == wanted.split()
    assert len(TAGS) == 17


def test_a_lexicon_is_the_same_after_packing(wordnet):
    lexicon = Lexicon.read(wordnet)
    assert Lexicon.unpacked(lexicon.packed()) == lexicon
    assert "old_man" not in lexicon.known
    with pytest.raises(ValueError, match=r"contains no index\.noun"):
        Lexicon.read(wordnet / "else")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (computed(""), "has no tokens"),
        (computed(3), "its 'text' is int"),
        (computed("\ud800"), "is not valid Unicode"),
    ],
)
def test_what_cannot_be_a_text_is_a_reject(source, message):
    with pytest.raises(RejectError, match=message):
        prepared().encode(source)


def test_files_that_are_no_text_are_rejects(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.jsonl").write_text("[1]\n{\n")
    with pytest.raises(RejectError, match="is not valid UTF-8"):
        read_document(Source(id="a", path=tmp_path / "a.txt"))
    with pytest.raises(RejectError, match="is list, not a JSON object"):
        read_document(Source(id="b", path=tmp_path / "b.jsonl", window=(0, 3)))
    with pytest.raises(RejectError, match="is not valid JSON"):
        read_document(Source(id="b", path=tmp_path / "b.jsonl", window=(4, 5)))
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfok")
    assert read_document(Source(id="c", path=tmp_path / "c.txt")).text == "ok"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": "train:unigram:400"}, "does not describe a training run"),
        ({"tokenizer": "train:bpe:20"}, "a vocabulary of at least 300"),
        ({"words": False, "classes": "x"}, "classes need words"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TextEncoder(**settings)


def test_a_tokenizer_that_is_given_by_path(tmp_path):
    definition = Training.parse("train:bpe:400").trained(TEXTS)
    (tmp_path / "t.json").write_bytes(definition)
    encoder = TextEncoder(tokenizer=str(tmp_path / "t.json")).prepared({})
    assert zlib.decompress(encoder.definition) == definition
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer=.*t\.json' cannot be used: not a tokenizer\.json"):
        TextEncoder(tokenizer=str(tmp_path / "t.json")).prepared({})
    far = json.loads(definition)
    far["model"]["vocab"]["a"] = 3_000_000_000
    (tmp_path / "t.json").write_text(json.dumps(far))
    with pytest.raises(
        ValueError, match=r"t\.json' cannot be used: a vocabulary must have 1 to 2147483648 ids, got 3000000001"
    ):
        TextEncoder(tokenizer=str(tmp_path / "t.json")).prepared({})
    with pytest.raises(ValueError, match="cannot be read"):
        TextEncoder(tokenizer=str(tmp_path / "none.json")).prepared({})


def test_a_text_at_which_the_tokenizer_panics_is_a_reject(tmp_path):
    """Its pattern tries too often, and a panic of Rust code is not an Exception."""
    definition = json.loads(Training.parse("train:wordpiece:300").trained(TEXTS))
    pattern = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "t.json").write_text(json.dumps({**definition, "pre_tokenizer": pattern}))
    for name, text in (("bad", "x" * 60), ("good", TEXTS[0]), ("fine", TEXTS[1])):
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / f"raw/{name}.txt").write_text(text)
    encoder = [f"tokenizer={tmp_path / 't.json'}"]
    report = make_shards(
        "txt", tmp_path / "raw", tmp_path / "out", workers=0, max_rejects=1, settings=encoder, as_is=True
    )
    (reject,) = pq.read_table(tmp_path / "out/train/rejects.parquet").to_pylist()
    assert reject["source"] == "bad.txt"
    assert "PanicException" in reject["reason"]
    assert report.splits["train"].counts["samples"] == 2


def test_settings_change_fields_of_an_encoder():
    assert with_settings(TextEncoder(), ["tokenizer=train:bpe:400", "words=false"]) == TextEncoder(
        tokenizer="train:bpe:400", words=False
    )
    assert with_settings(ImageEncoder(), ["short_side=64"]) == ImageEncoder(short_side=64)
    with pytest.raises(ValueError, match="there is no field 'size'"):
        with_settings(TextEncoder(), ["size=3"])


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_same_bytes_with_any_number_of_workers_and_the_tokenizer_beside(tmp_path):
    write_lines(tmp_path / "train.jsonl", [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)])
    settings = ("tokenizer=train:wordpiece:400",)
    for name, workers in (("one", 0), ("two", 2)):
        make_shards("jsonl", tmp_path, tmp_path / name, settings=settings, workers=workers)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "train").iterdir() if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two
    split = tmp_path / "one" / "train"
    info = read_dataset_json(split)
    assert read_tokenizer_facts(str(split), info) == read_facts(read_tokenizer(open_store(split), info))
    assert verify(split, decode=True).problems == []
    (split / "tokenizer.json").write_bytes(one["tokenizer.json"][:-1])
    assert any("has the sha256" in problem for problem in verify(split).problems)
    with pytest.raises(ShardError, match="has the sha256"):
        read_tokenizer(open_store(split), info)
    make_shards("jsonl", tmp_path, tmp_path / "one", settings=settings, workers=0)
    assert (split / "tokenizer.json").read_bytes() == one["tokenizer.json"]


def test_rows_of_a_parquet_file(tmp_path):
    table = pa.table({"text": TEXTS, "label": [i % 3 for i in range(len(TEXTS))], "n": [*range(len(TEXTS))]})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=7)
    for row in (0, 6, 7, 39):
        document = read_document(Source(id="x", path=tmp_path / "train.parquet", window=(row, row + 1)))
        assert document.text == TEXTS[row]
        assert document.meta == {"n": row}
    with pytest.raises(OutageError, match="no longer contains row 40"):
        read_document(Source(id="x", path=tmp_path / "train.parquet", window=(40, 41)))


def test_a_line_is_a_window_of_bytes(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xc3\xa9"}\r\n\n{"text": "two", "id": "second"}')
    sources = jsonl(tmp_path).splits["train"]
    assert [(s.id, read_document(s).text) for s in sources] == [("a.jsonl:1", "café"), ("second", "two")]
    assert isinstance(prepared(), TokenEncoder)
