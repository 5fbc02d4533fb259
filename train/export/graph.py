"""The features of a model as a graph of torch.export, or of ONNX.

Its inputs are the tensors of a batch from which the features are computed, by their names, such as `image`; for texts,
`input_ids` and `attention_mask`. Any number of samples may be passed. A classifier's graph returns class scores.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.stream.batch import Batch, Movable
from maskstream.train.core.model import Model
from maskstream.train.evaluate.classifier import Classifier, EncoderClassifier
from maskstream.train.nn.token_model import TokenModel

from .card import CALLS, Way, format_definition, read_lines
from .raw import RawKind, RawTexts

CLASSES = "classes.json"
"""Names of a classifier's classes."""


class _Graph(nn.Module):
    """Computes the features of a batch in which the tensors `names` are replaced by the inputs."""

    def __init__(self, model: nn.Module, batch: Batch, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self._batch, self._names = model, batch, names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self._names, inputs, strict=True))
        every = iter([name for name, _ in list_tensors(self._batch)])
        return score_batch(self.model, self._batch._map(lambda own: given.get(next(every), own)))


def score_batch(model: Any, batch: Batch) -> Tensor:
    """Return the features of a batch, or the scores of a classifier.

    Args:
        model: The model.
        batch: The batch.
    """
    found: Tensor = model.scores(batch) if isinstance(model, Classifier | EncoderClassifier) else model.features(batch)
    return found


class _TextGraph(nn.Module):
    """Computes the features of texts in rows of L ids, int64 (B, L), with `attention_mask` int64 (B, L): the mean of
    the encoder's output over real ids, or the scores of a classifier. The padding of a row is a separate document, so
    that no shape depends on lengths.
    """

    def __init__(self, model: Model[Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows, length = input_ids.shape
        lengths, column = attention_mask.sum(dim=1, keepdim=True), torch.arange(length)
        begin = torch.arange(rows)[:, None] * length
        edges = torch.cat((torch.cat((begin, begin + lengths), dim=1).flatten(), begin[-1:, 0] + length)).int()
        places = torch.where(column < lengths, column, column - lengths).flatten()
        body: Any = _body(self.model)
        states = body.encode_ids(input_ids.flatten(), places, edges, length).view(rows, length, -1)
        found: Tensor = (states * attention_mask[..., None]).sum(dim=1) / lengths
        return self.model.head(self.model.norm(found)) if isinstance(self.model, EncoderClassifier) else found


class _Used(TorchFunctionMode):
    """Records the tensors that functions receive."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[Tensor] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given in (*args, *kwargs.values()):  # torch.cat and indexing take sequences of tensors
            leaves = given if isinstance(given, list | tuple) else (given,)
            self.found.update(one for one in leaves if isinstance(one, Tensor))
        return func(*args, **kwargs)


@torch.no_grad()
def to_graph(model: Model[Any], batch: Batch, kind: RawKind | None, classes: Sequence[str], *, onnx: bool) -> Way:
    """Convert a model's `features`, or a classifier's scores, to a graph of torch or ONNX, traced with a batch.

    Args:
        model: The model.
        batch: Batch to trace with.
        kind: Kind of raw samples; None if only tensors can be read.
        classes: Names of a classifier's classes.
        onnx: Whether to write ONNX instead of torch.export.

    Raises:
        ValueError: Tracing or conversion fails.
    """
    name, reader = ("model.onnx", "onnxruntime.InferenceSession") if onnx else ("model.pt2", "torch.export.load")
    given = _list_inputs_of(model, batch)
    raw = kind if kind is not None and kind.given in given and (len(given) == 1 or isinstance(kind, RawTexts)) else None

    def write(folder: Path) -> None:
        program = _trace(model, batch, given)
        if onnx:
            _write_onnx(program, list(given), folder / name, "scores" if classes else "features")
        else:
            torch.export.save(program, folder / name)
        if isinstance(raw, RawTexts):
            raw.write_tokenizer(folder)
        if classes:
            (folder / CLASSES).write_text(json.dumps(list(classes)) + "\n")

    card = _card(name, given, raw, classes, onnx=onnx)
    inputs = () if raw else tuple(given)
    call = f'{reader}("FOLDER/{name}")'
    return Way(reader=reader, call=call, write=write, card=card, inputs=inputs, classes=tuple(classes))


def _card(name: str, given: Mapping[str, Tensor], kind: RawKind | None, classes: Sequence[str], *, onnx: bool) -> str:
    """Return the Python code of a card; `given` are the inputs."""
    more = ""
    lines = [read_lines(kind), "\n"] if kind is not None and kind.card else []
    if isinstance(kind, RawTexts):
        lines += ["from tokenizers import Tokenizer\n"]
    lines += ["import json\n"] if classes else []
    load = f'graph = torch.export.load("{name}").module()'
    if onnx:
        load = f'session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])'
    lines += ["import numpy as np", "import onnxruntime" if onnx else "import torch", "", load]
    lines += [f'classes = json.loads(open("{CLASSES}").read())'] if classes else []
    body = []
    if isinstance(kind, RawTexts):
        lines += [
            'tokenizer = Tokenizer.from_file("tokenizer.json")',
            f"tokenizer.enable_truncation({kind.length})",
            f"tokenizer.enable_padding(length={kind.length}, pad_id={kind.facts.pad or 0})",
        ]
        body += ["rows = tokenizer.encode_batch(list(texts))"]
        values = {
            "input_ids": "np.array([row.ids for row in rows], np.int64)",
            "attention_mask": "np.array([row.attention_mask for row in rows], np.int64)",
        }
    elif kind is not None:
        values = {kind.given: f"{CALLS[kind.card]}({kind.plural})"}
    else:
        values = {one: one for one in given}
        shapes = ", ".join(
            f"{key} {str(own.dtype).removeprefix('torch.')} ({', '.join(['B', *map(str, own.shape[1:])])})"
            for key, own in given.items()
        )
        more = f"\n\n    Of the tensors of a batch of the loader: {shapes}.\n    "
    if onnx:
        fed = ", ".join(f'"{key}": np.asarray({own})' for key, own in values.items())
        body += [f"return session.run(None, {{{fed}}})[0]"]
    else:
        body += [
            "with torch.no_grad():",
            f"    return graph({', '.join(f'torch.as_tensor({own})' for own in values.values())})",
        ]
    head = format_definition(kind.plural if kind else ", ".join(given), classes, more)
    return "\n".join([*lines, "", "", head, *(f"    {line}" for line in body)])


def _list_inputs_of(model: Model[Any], batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch that features depend on, by name, and remove modules from the model that features
    do not need.
    """
    with _Used() as used:
        score_batch(model, batch)
    names = [name for name, own in list_tensors(batch) if own in used.found]
    for name, child in list(model.named_children()):
        owned = [*child.parameters(), *child.buffers()]
        if owned and used.found.isdisjoint(owned):
            delattr(model, name)
    if isinstance(batch, TextBatch) and isinstance(_body(model), TokenModel):
        return {"input_ids": batch.inputs, "attention_mask": batch.valid.long()}
    return {name: own for name, own in list_tensors(batch) if name in names}


def _body(model: Model[Any]) -> Model[Any]:
    """Return the model that computes the features; a classifier contains it."""
    return model.body if isinstance(model, EncoderClassifier) else model


def _trace(model: Model[Any], batch: Batch, given: Mapping[str, Tensor]) -> ExportedProgram:
    """Trace a graph of the inputs `given` of a batch; their sizes may change where the model allows it."""
    of_text = isinstance(batch, TextBatch) and isinstance(_body(model), TokenModel)
    graph = _TextGraph(model) if of_text else _Graph(model, batch, list(given))
    text = isinstance(graph, _TextGraph)
    each = tuple({0: Dim.AUTO} if text else dict.fromkeys(range(own.ndim), Dim.AUTO) for own in given.values())
    shapes: Any = each if text else (each,)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its internal calls
            return torch.export.export(graph.eval(), tuple(given.values()), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch has many
        said = str(error).strip().partition("\n")[0]
        raise ValueError(f"torch.export cannot trace the features of a {type(model).__name__} ({said})") from error


def _write_onnx(program: ExportedProgram, names: list[str], path: Path, output: str) -> None:
    """Write a graph as ONNX, with large weights in a separate file; raise ValueError if torch cannot translate it."""
    options: dict[str, Any] = {"input_names": names, "output_names": [output], "dynamo": True, "verbose": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its internal calls
            made = torch.onnx.export(program, (), **options)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = str(cause).strip().partition("\n")[0]
        raise ValueError(f"torch cannot translate this graph to ONNX ({said}); try --to torch") from error
    assert made is not None
    made.save(path)


def list_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a batch with their names, in the order in which `Movable` maps them.

    Args:
        value: A batch, or a part of one.
        name: Name of the part, which begins the names of its tensors.
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Movable):
        for one in fields(cast(Any, value)):
            yield from list_tensors(getattr(value, one.name), f"{name}_{one.name}".lstrip("_"))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from list_tensors(inner, f"{name}_{key}")
