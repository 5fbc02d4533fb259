"""A step of ModernBERT and of BERT on texts of several lengths: CPU ms for 1,000 tokens, forward and backward.

    OMP_NUM_THREADS=1 python benchmarks/long_text.py [--tokens 4096] [--rounds 3]

Both have 6 layers of width 256, and a row is one document, of which 30 % of the tokens are hidden. BERT attends to the
whole of it in every layer, ModernBERT in two of six. Rounds alternate; the figures are medians of processor time.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from maskstream.pipelines.masks import Cues, Draw, Padded, Replace, TokenGrid, Tokens
from maskstream.pipelines.modalities.text.batch import TextBatch, text_batch
from maskstream.train.nn.token_model import TokenModelConfig
from maskstream.train.papers.modernbert.model import ModernModelConfig

VOCABULARY, MASK_ID = 8192, 4
LENGTHS = (128, 1024, 4096)
SIZES = {"vocabulary": VOCABULARY, "width": 256, "depth": 6, "heads": 4}


def made_batch(length: int, tokens: int) -> TextBatch:
    """Documents of `length` random ids, about `tokens` in all, a row each."""
    rows, rng = max(tokens // length, 1), np.random.default_rng(0)
    ids = rng.integers(5, VOCABULARY, (rows, length)).astype(np.int32)
    words = np.tile(np.arange(length), (rows, 1))
    mask = Padded(mask=Replace(mask=Tokens(ratio=0.3), mask_id=MASK_ID, vocabulary=VOCABULARY))
    cues = [Cues(words=words[row], tokens=ids[row].astype(np.int64)) for row in range(rows)]
    draws = [Draw(rng=np.random.default_rng(row), cues=one) for row, one in enumerate(cues)]
    grid = TokenGrid(axes=("token",), shape=(length,), patch=(1,))
    return text_batch(
        tokens=ids,
        documents=np.zeros((rows, length), np.int32),
        words=words.astype(np.int32),
        key=[str(row) for row in range(rows)],
        mask=mask.draw(grid, draws),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for length in LENGTHS:
        batch = made_batch(length, args.tokens)
        grids = {"text": TokenGrid(axes=("token",), shape=(length,), patch=(1,))}
        models = {
            "bert": TokenModelConfig(**SIZES).build(grids),
            "modernbert": ModernModelConfig(**SIZES, hidden=384).build(grids),
        }
        spent: dict[str, list[float]] = {name: [] for name in models}
        for number in range(args.rounds + 1):
            for name, model in models.items():
                before = time.process_time()
                model(batch).loss().backward()
                if number:  # the first is a warm-up
                    spent[name].append(1e6 * (time.process_time() - before) / batch.tokens.numel())
        costs = {name: median(each) for name, each in spent.items()}
        ratio = costs["bert"] / costs["modernbert"]
        words = ", ".join(f"{name} {cost:.0f} ms" for name, cost in costs.items())
        print(f"{length} tokens: {words} for 1,000 tokens; {ratio:.2f} times the tokens a second", flush=True)


if __name__ == "__main__":
    main()
