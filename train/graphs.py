"""The features of a model as a graph of torch.export, or of ONNX.

Its inputs are the tensors of a batch that the features are made of, by their names, such as `image`; of texts,
`input_ids` and `attention_mask`. Any number of samples may be given.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.stream.batch import Batch, Movable

from .core.model import Model
from .nn.token_model import TokenModel
from .targets import Way, need


class _Graph(nn.Module):
    """The features of a batch of whose tensors those of these `names` are given."""

    def __init__(self, model: nn.Module, batch: Batch, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self._batch, self._names = model, batch, names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self._names, inputs, strict=True))
        every = iter([name for name, _ in _list_tensors(self._batch)])
        model: Any = self.model
        found: Tensor = model.features(self._batch._map(lambda own: given.get(next(every), own)))
        return found


class _TextGraph(nn.Module):
    """The features of texts in rows of L ids, int64 (B, L), of which `attention_mask` int64 (B, L) says which are real:
    the mean of the encoder's output over them. What follows the real ones of a row is a document by itself, so that no
    shape depends on lengths.
    """

    def __init__(self, model: TokenModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows, length = input_ids.shape
        lengths, column = attention_mask.sum(dim=1, keepdim=True), torch.arange(length)
        begin = torch.arange(rows)[:, None] * length
        edges = torch.cat((torch.cat((begin, begin + lengths), dim=1).flatten(), begin[-1:, 0] + length)).int()
        places = torch.where(column < lengths, column, column - lengths).flatten()
        states = self.model.encode_ids(input_ids.flatten(), places, edges, length).view(rows, length, -1)
        return (states * attention_mask[..., None]).sum(dim=1) / lengths


class _Used(TorchFunctionMode):
    """Notes by their identity the tensors that functions are given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        self.found |= {id(one): one for one in given if isinstance(one, Tensor)}
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def to_graph(model: Model[Any], batch: Batch, *, onnx: bool) -> Way:
    """A model's `features` as a graph of torch, or of ONNX, traced with a batch. ValueError where that fails."""
    name, reader = ("model.onnx", "onnxruntime.InferenceSession") if onnx else ("model.pt2", "torch.export.load")
    take = _inputs_of(model, batch)
    given = take(batch)

    def write(folder: Path) -> None:
        program = _trace(model, batch, given)
        if onnx:
            _write_onnx(program, list(given), folder / name)
        else:
            torch.export.save(program, folder / name)

    def read(folder: Path, other: Batch) -> Tensor:
        inputs = take(other)
        try:
            if onnx:
                session = need("onnxruntime").InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
                (found,) = session.run(None, {key: own.numpy() for key, own in inputs.items()})
                return torch.from_numpy(found)
            made: Tensor = torch.export.load(folder / name).module()(*inputs.values())
        except (RuntimeError, AssertionError) as error:
            said = str(error).strip().partition("\n")[0]
            raise ValueError(f"the graph does not take another number of samples ({said})") from error
        return made.detach()

    return Way(
        reader=reader, call=f'{reader}("FOLDER/{name}")', write=write, read=read, card=_card(name, given, onnx=onnx)
    )


def _card(name: str, given: Mapping[str, Tensor], *, onnx: bool) -> str:
    """The lines of Python of a card. given: the inputs."""
    words = ", ".join(given)
    kinds = ", ".join(
        f"{key} {str(own.dtype).removeprefix('torch.')} ({', '.join(['B', *map(str, own.shape[1:])])})"
        for key, own in given.items()
    )
    about = f'"""The features of each sample, float32 (B, D), of {kinds}."""'
    if not onnx:
        return f'''import torch

graph = torch.export.load("{name}").module()


def features({words}):
    {about}
    with torch.no_grad():
        return graph({", ".join(f"torch.as_tensor({key})" for key in given)})'''
    fed = ", ".join(f'"{key}": np.asarray({key})' for key in given)
    return f'''import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])


def features({words}):
    {about}
    return session.run(None, {{{fed}}})[0]'''


def _inputs_of(model: Model[Any], batch: Batch) -> Callable[[Batch], dict[str, Tensor]]:
    """What takes from a batch the tensors that features are made of, by name. The model loses what they do not need."""
    with _Used() as used:
        cast(Any, model).features(batch)
    names = [name for name, own in _list_tensors(batch) if id(own) in used.found]
    for name, child in list(model.named_children()):
        owned = [*child.parameters(), *child.buffers()]
        if owned and not any(id(one) in used.found for one in owned):
            delattr(model, name)

    def take(given: Batch) -> dict[str, Tensor]:
        if isinstance(given, TextBatch) and isinstance(model, TokenModel):
            return {"input_ids": given.inputs, "attention_mask": given.valid.long()}
        return {name: own for name, own in _list_tensors(given) if name in names}

    return take


def _trace(model: Model[Any], batch: Batch, given: Mapping[str, Tensor]) -> ExportedProgram:
    """The graph of the inputs `given` of a batch, whose sizes may change where the model lets them."""
    graph = _TextGraph(model) if isinstance(model, TokenModel) else _Graph(model, batch, list(given))
    text = isinstance(graph, _TextGraph)
    each = tuple({0: Dim.AUTO} if text else dict.fromkeys(range(own.ndim), Dim.AUTO) for own in given.values())
    shapes: Any = each if text else (each,)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own calls
            return torch.export.export(graph.eval(), tuple(given.values()), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch has many
        said = str(error).strip().partition("\n")[0]
        raise ValueError(f"torch.export cannot trace the features of a {type(model).__name__} ({said})") from error


def _write_onnx(program: ExportedProgram, names: list[str], path: Path) -> None:
    """Writes a graph as ONNX; large weights lie beside it. ValueError where torch cannot translate it."""
    options: dict[str, Any] = {"input_names": names, "output_names": ["features"], "dynamo": True, "verbose": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own calls
            made = torch.onnx.export(program, (), **options)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = str(cause).strip().partition("\n")[0]
        raise ValueError(f"torch cannot translate this graph to ONNX ({said}); try --to torch") from error
    assert made is not None
    made.save(path)


def _list_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch with their names, in the order in which `Movable` maps them."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Movable):
        for one in fields(cast(Any, value)):
            yield from _list_tensors(getattr(value, one.name), f"{name}_{one.name}".lstrip("_"))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _list_tensors(inner, f"{name}_{key}")
