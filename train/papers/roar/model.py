"""Text classifiers, a bidirectional LSTM with attention and a transformer encoder, and measures of token importance.

The LSTM with additive attention is the classifier of Jain and Wallace (2019); the encoder predicts from a text's first
token, as in the fine-tuning of RoBERTa (Liu et al., 2019). Recursive ROAR (Madsen et al., 2022, sec. 3, and their code)
retrains both, and compares measures of importance. Gradients are of the true label's logit, since hiding tokens that
support a wrong class would help the model.

Shapes: B rows of L tokens, D channels, C classes. Rows are cut to the longest of a batch. Tokens that a mask hides
enter with the mask's ids, usually [MASK].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.shards.arrays import Float32s
from maskstream.shards.limits import AtLeastTwo, PositiveInt
from maskstream.train.core.dropout import Dropout
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, of_labels
from maskstream.train.nn.token_layers import TokenIds
from maskstream.train.nn.transformer import Stack, init_normal


@dataclass(frozen=True, kw_only=True, slots=True)
class TextClassifierConfig(ModelConfig[TextBatch], ABC):
    """The sizes of a text classifier.

    Attributes:
        vocabulary: Number of token ids.
        width: Channels of a token.
        labels: Number of classes.
    """

    needs_labels: ClassVar[bool] = True

    vocabulary: PositiveInt = 30522
    width: PositiveInt = 768
    labels: AtLeastTwo = 2

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.labels


@dataclass(frozen=True, kw_only=True, slots=True)
class TextReading:
    """The outputs of a classifier.

    Attributes:
        scores: Logits float32 (B, C).
        attention: Weights of the tokens, which sum to 1, float32 (B, L); None in a model without a single attention.
    """

    scores: Tensor
    attention: Tensor | None = None


class TextClassifier(Model[TextBatch]):
    """Computes class scores of rows from the vectors of their ids, so that gradients with respect to these vectors are
    available.
    """

    float32_on_cpu = True

    def __init__(self, config: TextClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.vocabulary = config.vocabulary

    @abstractmethod
    def table(self, ids: Tensor) -> Tensor:
        """Return the vectors of ids int64 (B, L): float (B, L, D)."""

    @abstractmethod
    def read(self, vectors: Tensor, batch: TextBatch) -> TextReading:
        """Run the model on vectors of a batch's first L tokens; only `valid` ones are used.

        Args:
            vectors: Vectors (B, L, D).
            batch: The batch.
        """

    def vectors(self, batch: TextBatch) -> Tensor:
        """Return the vectors of the ids that the model reads, up to the longest row of the batch: (B, L, D).

        Raises:
            ValueError: An id is not in the model's vocabulary (checked only on a CPU).
        """
        rows, length = batch.tokens.shape
        alone = len(batch.unpadded.cu_seqlens) == rows + 1  # one document a row, with lengths on the host
        ids = batch.inputs[:, : batch.unpadded.longest if alone else length]
        if not ids.is_cuda and int(ids.max()) >= self.vocabulary:
            raise ValueError(
                f"the model has the ids 0 to {self.vocabulary - 1}, got {int(ids.max())}; set model.vocabulary to at "
                "least the size of the split's tokenizer"
            )
        return self.table(ids)

    def scores(self, batch: TextBatch) -> Tensor:
        """Return the logits of the classes, float32 (B, C)."""
        with nullcontext() if batch.tokens.is_cuda else torch.autocast("cpu", enabled=False):
            return self.read(self.vectors(batch), batch).scores.float()

    def loss(self, batch: TextBatch) -> Losses:
        """Return the cross-entropy of the label in nats; samples without a label do not count."""
        return Losses(parts={"classification": of_labels(self.scores(batch), batch.label)})


@dataclass(frozen=True, kw_only=True, slots=True)
class LSTMClassifierConfig(TextClassifierConfig):
    """The sizes of the LSTM classifier.

    Attributes:
        width: Channels of a token.
        hidden: Channels of each direction of the LSTM, and of its attention.
        decayed_attention: Whether the attention's weights decay like all other matrices.
    """

    width: PositiveInt = 300
    hidden: PositiveInt = 128
    decayed_attention: bool = True


class FreeLinear(nn.Linear):
    """A linear layer whose weights do not decay."""

    TABLES = ("weight",)


class LSTMClassifier(TextClassifier, config=LSTMClassifierConfig):
    """The sum of the LSTM's outputs, weighted by the softmax of v tanh(W h + b), and a linear layer."""

    def __init__(self, config: LSTMClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        self.ids = nn.Embedding(c.vocabulary, c.width)
        nn.init.normal_(self.ids.weight, std=0.1)
        self.lstm = nn.LSTM(c.width, c.hidden, batch_first=True, bidirectional=True)
        linear = nn.Linear if c.decayed_attention else FreeLinear
        self.asked = linear(2 * c.hidden, c.hidden)
        self.asks = linear(c.hidden, 1, bias=False)
        self.head = nn.Linear(2 * c.hidden, c.labels)

    def table(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.ids(ids))

    def read(self, vectors: Tensor, batch: TextBatch) -> TextReading:
        packed = pack_padded_sequence(vectors, batch.lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=vectors.shape[1])
        logits = self.asks(torch.tanh(self.asked(states)))[..., 0]
        hidden = ~batch.valid[:, : vectors.shape[1]]
        attention = logits.masked_fill(hidden, float("-inf")).softmax(dim=1)
        return TextReading(scores=self.head((attention[..., None] * states).sum(dim=1)), attention=attention)


@dataclass(frozen=True, kw_only=True, slots=True)
class RobertaClassifierConfig(TextClassifierConfig):
    """The sizes of the transformer classifier.

    Attributes:
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of a feed-forward layer per channel.
        eps: Epsilon of all norms.
    """

    depth: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_ratio: PositiveInt = 4
    eps: float = 1e-5

    def validate(self) -> None:
        self.need_heads()


class RobertaClassifier(TextClassifier, config=RobertaClassifierConfig):
    """Ids with learnt positions, pre-norm blocks, and a head on the first token: two linear layers with a tanh in
    between, each after dropout.
    """

    whole_graph = True

    def __init__(self, config: RobertaClassifierConfig, grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = c = config
        (length,) = grids["text"].need("token", by="a text model")
        self.embed = TokenIds(c.vocabulary, c.width, length, learned=True, eps=c.eps)
        self.encoder = Stack(c.depth, c.width, c.heads, c.mlp_ratio, c.eps)
        self.head = nn.Sequential(nn.Linear(c.width, c.width), nn.Tanh(), nn.Linear(c.width, c.labels))
        self.drop = Dropout()
        init_normal(self, c.width)

    def table(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.embed.ids(ids))

    def read(self, vectors: Tensor, batch: TextBatch) -> TextReading:
        places = torch.arange(vectors.shape[1], device=vectors.device)
        mask = batch.valid[:, None, None, : vectors.shape[1]]
        x = self.encoder(self.embed.placed(vectors, places), mask)
        first, tanh, last = self.head
        return TextReading(scores=cast(Tensor, last(self.drop(tanh(first(self.drop(x[:, 0])))))))


RANDOM, CONTROL = "random", "random again"
"""Random scores, the baseline, and other random scores, whose curve shows how far chance alone can deviate."""


def gradient(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """Return the L2 norm of the gradient with respect to a token's one-hot id: |dy/dx E^T| for the table E of all ids;
    (B, L).

    Args:
        model: The classifier.
        batch: The batch.
        points: Not used.
    """
    vectors = model.vectors(batch).detach()
    by_vector = _compute_gradients(model, batch, vectors)
    ids = torch.arange(model.vocabulary, device=vectors.device)
    table = model.table(ids[None])[0].detach()
    product = table.T @ table  # |g E^T|^2 = g (E^T E) g^T, without a matrix over all ids
    return torch.einsum("bld,de,ble->bl", by_vector, product, by_vector).clamp_min(0).sqrt()


def compute_input_x_gradient(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """Return the magnitude of the product of a token's vector with its gradient: |x dy/dx|; (B, L).

    Args:
        model: The classifier.
        batch: The batch.
        points: Not used.
    """
    vectors = model.vectors(batch).detach()
    return (vectors * _compute_gradients(model, batch, vectors)).sum(dim=-1).abs()


def average_integrated_gradients(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """Return the magnitude of integrated gradients (Sundararajan et al., 2017): (B, L).

    The mean gradient over the path from zero vectors to the vectors is used, by the right Riemann sum. With their
    signs, the values of a row approximately sum to the change of the logit along the path.

    Args:
        model: The classifier.
        batch: The batch.
        points: Number of points on the path.
    """
    return integrate_gradients(model, batch, points).abs()


def integrate_gradients(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """Return integrated gradients with their signs: (B, L).

    Args:
        model: The classifier.
        batch: The batch.
        points: Number of points on the path.
    """
    vectors = model.vectors(batch).detach()
    total = torch.zeros_like(vectors)
    for point in range(1, points + 1):
        total += _compute_gradients(model, batch, vectors * (point / points))
    return (vectors * total / points).sum(dim=-1)


def attention(model: TextClassifier, batch: TextBatch, points: int) -> Tensor:
    """Return the weights of attention (B, L).

    Args:
        model: The classifier.
        batch: The batch.
        points: Not used.

    Raises:
        ValueError: The model has no single attention.
    """
    with torch.no_grad():
        found = model.read(model.vectors(batch), batch).attention
    if found is None:
        raise ValueError(
            f"a {type(model).__name__} has no single attention over tokens; leave out the measure attention, or use a "
            "model with attention, such as roar-lstm-tiny"
        )
    return found


MEASURES: Mapping[str, Callable[[TextClassifier, TextBatch, int], Tensor]] = {
    "gradient": gradient,
    "input-x-gradient": compute_input_x_gradient,
    "integrated-gradients": average_integrated_gradients,
    "attention": attention,
}
"""The measures that look at a model, by name."""


def measure_importance(
    model: TextClassifier, batch: TextBatch, measure: str, *, seed: int, points: int
) -> list[Float32s]:
    """Return the importance of each row's tokens without special ones, float32 (tokens,); +inf for hidden ones.

    Args:
        model: The classifier.
        batch: The batch.
        measure: A name in MEASURES, RANDOM or CONTROL; the last two are functions of the seed and the sample's key.
        seed: Seed of random scores.
        points: Number of points of integrated gradients.
    """
    found = None if measure in (RANDOM, CONTROL) else MEASURES[measure](model, batch, points).float().cpu().numpy()
    words, rows = batch.words.cpu().numpy(), []
    hidden = None if batch.mask is None else batch.mask.masked.cpu().numpy()
    for row, key in enumerate(batch.key):
        real = np.flatnonzero(words[row] >= 0)
        if found is None:
            own = sample_rng(seed, 0, key, 0, f"importance {measure}").random(len(real), np.float32)
        else:
            own = found[row, real]
        rows.append(own if hidden is None else np.where(hidden[row, real], np.float32(np.inf), own))
    return rows


def _compute_gradients(model: TextClassifier, batch: TextBatch, vectors: Tensor) -> Tensor:
    """Return the gradient of each row's true logit with respect to its vectors: (B, L, D)."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if vectors.is_cuda:  # cuDNN's LSTM has no gradient outside training
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        asked = vectors.requires_grad_()
        scores = model.read(asked, batch).scores
        (found,) = torch.autograd.grad(scores.gather(1, batch.label.clamp_min(0)[:, None]).sum(), asked)
    vectors.requires_grad_(False)
    return found
