"""Training steps of masked language models: without padding, and as transformers' BERT with padding.

    python benchmarks/text.py data/shards/sample-text/train [--length 512] [--batch 16] [--rounds 7] [--json FILE]

Both models have the same sizes, weights, documents, masks and optimiser. Documents are padded to the longest of their
batch, as transformers' collator does. One thread; a step of each is measured in turn, round after round; CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from machine import facts
from transformers import BertConfig, BertForMaskedLM

from maskstream.pipelines.masks import Padded, Replace, Tokens
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.core.optimiser import OptimiserConfig, build_optimiser, set_lr
from maskstream.train.nn.foreign import to_bert, to_bert_config
from maskstream.train.nn.token_model import TokenModel, TokenModelConfig

SIZES = {"tiny": (128, 4, 4), "small": (384, 6, 6)}
"""Width, depth and heads."""
VOCABULARY = 8192


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a split of texts, with a vocabulary of at most 8192")
    parser.add_argument("--length", type=int, default=512, help="the most tokens of a document")
    parser.add_argument("--batch", type=int, default=16, help="documents of a step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ratio", type=float, default=0.15, help="hidden tokens")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def padded(batch: TextBatch) -> dict[str, torch.Tensor]:
    """What transformers' BERT takes of a batch, cut to its longest document."""
    if batch.mask is None:
        raise ValueError("the batch has no mask")
    n = int(batch.lengths.max())
    labels = batch.tokens.long().masked_fill(~batch.mask.masked, -100)[:, :n].contiguous()
    return {"input_ids": batch.inputs[:, :n], "attention_mask": batch.valid[:, :n].long(), "labels": labels}


def step_of(model: torch.nn.Module, loss: Callable[[TextBatch], torch.Tensor]) -> Callable[[TextBatch], float]:
    """A training step, which returns its loss."""
    optimiser = build_optimiser(model, OptimiserConfig(weight_decay=0.01))
    set_lr(optimiser, 1e-4)

    def step(batch: TextBatch) -> float:
        value = loss(batch)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(value.detach())

    return step


def measure(size: str, batches: list[TextBatch], length: int, data: TextData) -> dict[str, object]:
    """CPU seconds of each step of both models on the same batches, in turn; the first batch warms up."""
    width, depth, heads = SIZES[size]
    config = TokenModelConfig(vocabulary=VOCABULARY, width=width, depth=depth, heads=heads)
    ours = config.build(data.grids, seed=0)
    if not isinstance(ours, TokenModel):
        raise TypeError("the config builds a TokenModel")
    theirs = BertForMaskedLM(BertConfig(**to_bert_config(ours)))
    theirs.load_state_dict(to_bert(ours))
    steps = {
        "maskstream": step_of(ours, lambda batch: ours(batch).loss()),
        "transformers": step_of(theirs, lambda batch: theirs(**padded(batch)).loss),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses = dict.fromkeys(steps, 0.0)
    for number, batch in enumerate(batches):
        for name, step in steps.items():
            start = time.process_time()
            losses[name] = step(batch)
            if number:
                seconds[name].append(time.process_time() - start)
    tokens = [len(batch.unpadded.tokens) for batch in batches[1:]]
    rates = {name: [n / s for n, s in zip(tokens, spent, strict=True)] for name, spent in seconds.items()}
    ratios = [a / b for a, b in zip(rates["maskstream"], rates["transformers"], strict=True)]
    full = sum(len(b) * int(b.lengths.max()) for b in batches[1:])
    return {
        "size": size,
        "parameters": sum(p.numel() for p in ours.parameters()),
        "length": length,
        "documents": len(batches[0]),
        "share_of_padding": round(1 - sum(tokens) / full, 3),
        "tokens_per_s": {name: round(statistics.median(rate)) for name, rate in rates.items()},
        "ratio": round(statistics.median(ratios), 2),
        "least_ratio": round(min(ratios), 2),
        "last_losses": losses,
    }


def main() -> None:
    """Measures both sizes and prints a table."""
    options = arguments()
    torch.set_num_threads(1)
    mask = Padded(mask=Replace(mask=Tokens(ratio=options.ratio), mask_id=4, vocabulary=VOCABULARY))
    data = TextData(length=options.length, packing="row", mask=mask)
    loader = data.loader(options.data, batch_size=options.batch, seed=0, device="cpu", threads=1)
    batches = list(islice(loader, options.rounds + 1))
    loader.close()
    found = [measure(size, batches, options.length, data) for size in SIZES]
    print("| model | padding | maskstream, tokens/s | transformers, tokens/s | ratio (least) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for one in found:
        rates = one["tokens_per_s"]
        print(
            f"| {one['size']} | {one['share_of_padding']:.0%} | {rates['maskstream']:,} | {rates['transformers']:,} | "
            f"{one['ratio']} ({one['least_ratio']}) |"
        )
    if options.json:
        about = facts(("torch", "transformers"))
        options.json.write_text(json.dumps({"machine": about, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
