"""Reads the tensors of files that others wrote: safetensors, and .pth files without running what is pickled in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .file_sum import DamageError

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
NAMES = ("model.safetensors", "pytorch_model.bin")
"""The weights in a folder of transformers."""
INNER = ("model", "state_dict", "module")
"""Where a checkpoint has its weights beside other things."""


def is_foreign(path: Path) -> bool:
    """Whether a path is of a kind that this package does not write: a folder, or a pickled file."""
    return path.is_dir() or path.suffix in PICKLED


def read_foreign(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name of a .pth file, of a safetensors file, or of a folder that transformers wrote, on the CPU.

    Pickled files are read with `weights_only`, so they can run no code. Raises DamageError for a file that is missing,
    cannot be read or has no tensors.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise DamageError(f"{path} has no {' or '.join(NAMES)}; give a folder with the weights in one file")
        path = found[0]
    if not path.is_file():
        raise DamageError(f"{path} is missing; give a file of weights")
    try:
        if path.suffix not in PICKLED:
            return load_file(path)
        whole: object = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, BadZipFile) as error:
        raise DamageError(f"{path} cannot be read ({error}); give a whole file of weights") from error
    except pickle.UnpicklingError as error:
        raise DamageError(
            f"{path} holds more than tensors, and unpickling that could run code, so it is not read; save its weights "
            "alone, for example with safetensors"
        ) from error
    tensors = _tensors(whole)
    if not tensors:
        raise DamageError(f"{path} has no tensors by name; give a checkpoint with a state dict")
    return tensors


def _tensors(whole: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; of the dict in it that has the weights, where there is one."""
    if not isinstance(whole, dict):
        return {}
    for name in INNER:
        if isinstance(whole.get(name), dict):
            return _tensors(whole[name])
    return {str(name): value for name, value in whole.items() if isinstance(value, Tensor)}
