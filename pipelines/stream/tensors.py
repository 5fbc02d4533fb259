"""Tensors of batches, and lazy access to torch for modules that may be imported without it.

Importing torch takes 130 MB and a second of CPU time. A worker process that does not need it creates batches of arrays,
each a `HostArray`, which become tensors at the receiver (shared_memory.py). Modules that such processes import take
`torch` from here, which is imported on first access, and create tensors with `wrap_tensor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor
else:

    class _Torch:
        def __getattr__(self, name: str) -> object:
            import torch

            return getattr(torch, name)

    torch = _Torch()

_arrays_stay = False


class HostArray(np.ndarray[Any, np.dtype[Any]]):
    """An array in place of a tensor, in a process without torch, with the tensor methods that samplers use.

    Results of computations on it have the same type.
    """

    def numpy(self) -> npt.NDArray[Any]:
        """Return the array, sharing memory."""
        return self.view(np.ndarray)

    def repeat_interleave(self, repeats: int) -> HostArray:
        """Repeat each value."""
        return cast(HostArray, self.repeat(repeats))


def wrap_tensor(array: npt.NDArray[Any]) -> Tensor:
    """Return a tensor that shares an array's memory; a `HostArray` after `keep_arrays`."""
    return cast("Tensor", array.view(HostArray)) if _arrays_stay else torch.from_numpy(array)


def keep_arrays() -> None:
    """Create no tensors in this process from now on."""
    global _arrays_stay
    _arrays_stay = True
