"""A corpus and the tokenizer that belongs to it, a folder of transformers: shards of texts, a run, and new texts.

The user works on a language of one's own, whose tokenizer has special tokens of other names than BERT's.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from maskstream.pipelines import text_loader

from .conftest import Command

WORDS = ("ka", "lo", "mi", "nu", "pe", "ra", "so", "ti")


@pytest.mark.slow
def test_texts_are_those_of_the_own_tokenizer(maskstream: Command, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    special = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS))}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True)),
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    rng = np.random.default_rng(0)
    texts = [" ".join(WORDS[(start + i) % 8] for i in range(20)) for start in rng.integers(0, 8, 200)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/train.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "corpus/val.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:20]))

    maskstream("shards jsonl --root corpus --out shards --set tokenizer=tokenizer --workers 1")
    maskstream("inspect shards/train")
    batch = next(iter(text_loader(tmp_path / "shards/train", length=32, packing="row", batch_size=4, seed=0)))
    for tokens, length in zip(batch.tokens, batch.lengths.tolist(), strict=True):
        assert fast.decode(tokens[1 : length - 1].tolist()) in texts
    maskstream(
        "train bert-tiny --data shards/train --out run --steps 150 --set model.vocabulary=13 --set data.length=32"
        " --set batch_size=8"
    )
    made = maskstream('paper bert run --data shards/train --text "ka lo mi" --blanks 5 --temperature 0 --json').json
    assert set(made["texts"]) == {"ka lo mi nu pe ra so ti"}
