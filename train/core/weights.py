"""Files of a run: their sums, tensors in one or more safetensors files, and a trained model.

A model is one safetensors file with its weights and the config that rebuilds it.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from zipfile import BadZipFile

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from maskstream.pipelines.masks import TokenGrid
from maskstream.shards.errors import ResumeError
from maskstream.shards.stores.local_files import publish
from maskstream.shards.stores.url import get_local_path

from .distributed import divide_like, gather_rows, is_divided
from .model import Model, ModelConfig, import_models

_CHUNK_BYTES = 1 << 20


class RunFileError(ResumeError):
    """A file of a run differs from what was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSum:
    """The size of a file, or of its beginning, and the xxh3_128 of these bytes as 32 hex digits."""

    size_bytes: int
    xxh3_128: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the size and checksum of some bytes."""
        return cls(size_bytes=len(data), xxh3_128=xxhash.xxh3_128_hexdigest(data))

    def check(self, path: Path) -> None:
        """Raise RunFileError unless the file has exactly these bytes."""
        self.begun(path)
        if (size := path.stat().st_size) != self.size_bytes:
            raise RunFileError(f"{path.name} has {size} bytes, but was written with {self.size_bytes}")

    def begun(self, path: Path) -> xxhash.xxh3_128:
        """Return the hash of a file that begins with these bytes, which can be extended.

        Raises:
            RunFileError: The file begins differently, is shorter, missing or not a regular file, or cannot be read.
        """
        if not path.is_file():
            raise RunFileError(f"{path.name} is {'not a file' if path.exists() else 'missing'}")
        found, left = xxhash.xxh3_128(), self.size_bytes
        try:
            with path.open("rb") as file:
                while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    found.update(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise RunFileError(f"{path.name} cannot be read ({error.strerror})") from error
        if left:
            raise RunFileError(
                f"{path.name} has {self.size_bytes - left} bytes, but was written with {self.size_bytes}"
            )
        if found.hexdigest() != self.xxh3_128:
            raise RunFileError(f"{path.name} does not have the contents that were written (its checksum differs)")
        return found


NO_BYTES = FileSum.of(b"")


def part_name(name: str, part: int, parts: int) -> str:
    """Return the file name of one of several parts; `name` itself if there is only one.

    Args:
        name: File name, with a suffix.
        part: Number of the part.
        parts: Number of parts.
    """
    stem, _, suffix = name.rpartition(".")
    return name if parts == 1 else f"{stem}-{part:05d}-of-{parts:05d}.{suffix}"


def find_files(path: Path) -> list[Path]:
    """Return the file at `path` or, if it is missing, its parts in order; [path] if there are none."""
    if path.exists():
        return [path]
    found = sorted(path.parent.glob(f"{path.stem}-[0-9]*-of-[0-9]*{path.suffix}"))
    whole = [path.with_name(part_name(path.name, part, len(found))) for part in range(len(found))]
    return found if found and found == whole else [path]


class TensorFiles:
    """Open files of tensors. OSError or SafetensorError if one cannot be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._stack = ExitStack()
        self._files: list[Any] = [self._stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        self._holders: dict[str, list[Any]] = {}
        for file in self._files:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                self._holders.setdefault(name, []).append(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._holders)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the first file."""
        return dict(self._files[0].metadata() or {})

    def whole(self, name: str) -> Tensor:
        """Return a tensor with all its rows."""
        parts = [cast(Tensor, file.get_tensor(name)) for file in self._holders[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def like(self, name: str, target: Tensor | None) -> Tensor:
        """Return a tensor divided as `target` is, reading only the rows of this rank. Scalars are never divided.

        Args:
            name: Name of the tensor in the files.
            target: Tensor whose division is copied; None for a whole tensor.
        """
        if target is None or not is_divided(target):
            return self.whole(name)
        slices = [file.get_slice(name) for file in self._holders[name]]
        if not slices[0].get_shape():
            return self.whole(name)
        shape = [sum(one.get_shape()[0] for one in slices), *slices[0].get_shape()[1:]]
        return divide_like(target, shape, lambda first, stop: self._rows(slices, first, stop))

    def _rows(self, slices: Sequence[Any], first: int, stop: int) -> Tensor:
        begin, parts = 0, []
        for one in slices:
            end = begin + one.get_shape()[0]
            if max(begin, first) < min(end, stop):
                parts.append(one[max(first - begin, 0) : min(stop, end) - begin])
            begin = end
        return torch.cat(parts) if parts else slices[0][0:0]


PICKLED = (".pth", ".pt", ".bin", ".ckpt")
NAMES = ("model.safetensors", "pytorch_model.bin")
"""The weights in a folder of transformers."""
INNER = ("model", "state_dict", "module")
"""Keys under which a checkpoint stores its weights if it also has other contents."""


def is_foreign(path: Path) -> bool:
    """Return whether a path is a folder or a pickled file, which this package does not write."""
    return path.is_dir() or path.suffix in PICKLED


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .pth file, a safetensors file or a folder written by transformers, on the CPU.

    Pickled files are read with `weights_only`, so they cannot run code.

    Args:
        path: File or folder.

    Returns:
        Tensors by name.

    Raises:
        RunFileError: The file is missing, cannot be read or has no tensors.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise RunFileError(f"{path} has no {' or '.join(NAMES)}; pass a folder with the weights in one file")
        path = found[0]
    if not path.is_file():
        raise RunFileError(f"{path} does not exist; pass a weights file")
    try:
        if path.suffix not in PICKLED:
            return load_file(path)
        whole: object = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, BadZipFile) as error:
        raise RunFileError(f"{path} cannot be read ({error}); pass a complete weights file") from error
    except pickle.UnpicklingError as error:
        raise RunFileError(
            f"{path} contains more than tensors and is not read, because unpickling it could run code; save only its "
            "weights, for example with safetensors"
        ) from error
    tensors = _tensors(whole)
    if not tensors:
        raise RunFileError(f"{path} contains no named tensors; pass a checkpoint with a state dict")
    return tensors


def _tensors(whole: object) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; of the inner dict with the weights, if there is one."""
    if not isinstance(whole, dict):
        return {}
    for name in INNER:
        if isinstance(whole.get(name), dict):
            return _tensors(whole[name])
    return {str(name): value for name, value in whole.items() if isinstance(value, Tensor)}


SUM = "xxh3_128"
"""The metadata with the checksum of the other metadata and of all tensors."""


def save_model(
    model: nn.Module,
    path: str | Path,
    about: Mapping[str, str] | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model's weights, config and grids to a safetensors file.

    Args:
        model: The model.
        path: Path of the file.
        about: Further metadata, such as recipe and step.
        weights: Weights by name to store instead of the model's, of the same shapes (...,), such as their average.
    """
    publish(get_local_path(path, "the weights"), encode_model(model, about, weights))


def encode_model(
    model: nn.Module, about: Mapping[str, str] | None = None, replaced: Mapping[str, Tensor] | None = None
) -> bytes:
    """Return the contents of the file that `save_model` writes.

    If the model is sharded, all ranks must call it.

    Args:
        model: The model.
        about: Metadata.
        replaced: Tensors, by name, to write instead of the model's.
    """
    metadata = make_metadata(model, about)
    state = {**model.state_dict(), **(replaced or {})}
    return pack_weights(
        {name: gather_rows(tensor).detach().cpu().contiguous() for name, tensor in state.items()}, metadata
    )


def make_metadata(model: nn.Module, about: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the metadata of a model's file: `about`, and the config and grids that rebuild the model.

    Args:
        model: The model.
        about: Further metadata.

    Raises:
        ValueError: The module is not a `Model`.
    """
    if not isinstance(model, Model):
        raise ValueError(f"only a Model can be saved, got {type(model).__name__}; build it with ModelConfig.build")
    grids = {name: grid.to_dict() for name, grid in model.grids.items()}
    built_of = {"model": json.dumps(model.settings.to_dict()), "grids": json.dumps(grids)}
    return {**(about or {}), "format": "pt", **built_of}


def pack_weights(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file with a checksum of metadata and tensors; equal inputs result in equal bytes.

    Args:
        weights: Tensors by name.
        metadata: Metadata of the file.
    """
    data = memoryview(save(dict(weights), metadata={**metadata, SUM: _sum(weights, metadata)}))
    begin = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(bytes(data[8:begin]))
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))  # safetensors writes them in a random order
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, data[begin:]])


def load_model(path: str | Path) -> Model[Any]:
    """Load the model that `save_model` wrote, on the CPU, in eval mode.

    Raises:
        ValueError: The file has no config of a model.
        RunFileError: The file has changed since it was written.
    """
    weights, metadata = _read(get_local_path(path, "the weights"))
    if "model" not in metadata or "grids" not in metadata:
        raise ValueError(f"{path} contains no model config; pass a file written by `save_model` or a training run")
    import_models()
    grids = {name: TokenGrid.from_dict(grid) for name, grid in json.loads(metadata["grids"]).items()}
    config: ModelConfig[Any] = ModelConfig.from_dict(json.loads(metadata["model"]))
    model = config.build(grids)
    model.load_state_dict(weights)
    return model.eval()


def read_model_config(path: Path) -> ModelConfig[Any]:
    """Return the config of the model in a file.

    Raises:
        ValueError: The file has no config of a model.
    """
    with safe_open(find_files(path)[0], framework="pt") as file:
        metadata = file.metadata() or {}
    if "model" not in metadata:
        raise ValueError(f"{path} contains no model config; pass a file written by `save_model` or a training run")
    import_models()
    return ModelConfig.from_dict(json.loads(metadata["model"]))


def load_matching_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Load the weights of a file whose names and shapes match the model's.

    Args:
        model: The model.
        path: A safetensors file, a folder written by transformers, or a .pth file. For VideoMAE and MAE, files of
            transformers and of the authors are supported, with the whole model or only the encoder.

    Returns:
        The names of the parameters that found no match.

    Raises:
        ValueError: Fewer than half of the file's tensors match, as with another kind of model or other sizes.
        RunFileError: The file cannot be read or has changed since it was written.
    """
    file = get_local_path(path, "the weights")
    weights: Mapping[str, Tensor] = read_foreign(file) if is_foreign(file) else _read(file)[0]
    if isinstance(model, Model):
        weights = model.rename_weights(weights)
    own = model.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
    if not fitting or 2 * len(fitting) < len(weights):
        strange = next(name for name in weights if name not in fitting)
        raise ValueError(
            f"{len(fitting)} of {len(weights)} tensors in {path} fit a {type(model).__name__} of these sizes, but at "
            f"least half must; {strange!r} does not. Pass weights from the same kind of model with the same sizes"
        )
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def compute_weights_sum(path: Path) -> tuple[str, int]:
    """Return the checksum of a model's file, and the step after which it was written, 0 if unknown.

    The checksums of several parts are joined by dashes.
    """
    sums, step = [], "0"
    for one in find_files(path):
        with safe_open(one, framework="pt") as file:
            metadata = file.metadata() or {}
        sums.append(metadata.get(SUM) or FileSum.of(one.read_bytes()).xxh3_128)
        step = metadata.get("step", step)
    return "-".join(sums), int(step)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of a safetensors file, or of all parts that several ranks wrote.

    Raises:
        RunFileError: The checksum, if there is one, differs.
    """
    files = find_files(path)
    for one in files:
        if not one.is_file():
            raise RunFileError(f"{one} is {'not a file' if one.exists() else 'missing'}; pass a model.safetensors")
    made: dict[str, list[Tensor]] = {}
    metadata: dict[str, str] = {}
    for one in reversed(files):
        try:
            tensors = load_file(one)
            with safe_open(one, framework="pt") as file:
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise RunFileError(f"{one} cannot be read ({error}); pass a complete model.safetensors") from error
        expected = metadata.pop(SUM, None)
        if expected is not None and expected != _sum(tensors, metadata):
            raise RunFileError(
                f"{one} does not have the contents that were written (its checksum differs); pass a complete copy, or "
                "the file from a checkpoint"
            )
        for name, tensor in tensors.items():
            made.setdefault(name, []).insert(0, tensor)
    return {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in made.items()}, metadata


def _sum(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the checksum of metadata and tensors."""
    found = xxhash.xxh3_128(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
