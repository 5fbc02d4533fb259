"""The tensors of batches; and torch, for modules that a process may import without it.

torch takes 130 MB and a second of CPU time to import. A worker process that needs none makes its batches of arrays,
each a `HostArray`; they become tensors where they are received (shared_memory.py). So what such processes import takes
`torch` from here, which is the package, imported when something of it is first asked for, and makes tensors by
`wrap_tensor`.
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
    """An array in the place of a tensor, in a process without torch. It has what samplers ask of a batch's tensors, and
    what is computed of it is one too.
    """

    def numpy(self) -> npt.NDArray[Any]:
        """The array, in the same memory."""
        return self.view(np.ndarray)

    def repeat_interleave(self, repeats: int) -> HostArray:
        """Each value so many times."""
        return cast(HostArray, self.repeat(repeats))


def wrap_tensor(array: npt.NDArray[Any]) -> Tensor:
    """The tensor in the memory of an array; a `HostArray` after `keep_arrays`."""
    return cast("Tensor", array.view(HostArray)) if _arrays_stay else torch.from_numpy(array)


def keep_arrays() -> None:
    """Makes no tensors in this process from now on."""
    global _arrays_stay
    _arrays_stay = True
