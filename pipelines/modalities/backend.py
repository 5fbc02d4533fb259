"""Choice between DALI and this package's decoders. DALI is used on request; for video, `backend="auto"` also selects it
if it is estimated to be at least twice as fast (video/decoders.py).
"""

from importlib.util import find_spec
from typing import Literal, get_args

Backend = Literal["auto", "cpu", "dali"]


def explain_missing_dali() -> str:
    """Return why DALI cannot be imported; "" if it can."""
    if find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None:
        return ""
    return "it needs DALI: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'"


def wants_dali(backend: str, *others: str) -> bool:
    """Return whether DALI is requested.

    Raises:
        ValueError: The backend is neither in `Backend` nor in `others`, or DALI is not installed.
    """
    if backend not in (legal := (*get_args(Backend), *others)):
        raise ValueError(f"backend={backend!r}; expected {', '.join(map(repr, legal[:-1]))} or {legal[-1]!r}")
    if backend == "dali" and (missing := explain_missing_dali()):
        raise ValueError(f"backend='dali': {missing}")
    return backend == "dali"
