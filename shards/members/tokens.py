"""The kind `tokens`: one whole number for each token of a text, uint8, uint16 or uint32 (N,), as NPY.

`tokens.npy` holds ids, `words.npy` the number of a token's word, `classes.npy` the class of that word.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.npy import NpyError, npy_bytes, npy_header

from .member import Kind, Member

TOKEN_TYPES = ("|u1", "<u2", "<u4")
"""The legal dtypes."""


def tokens_member(values: npt.NDArray[np.integer], below: int | None = None) -> Member:
    """Whole numbers (N,), none negative, as a member of the narrowest type for them, or for all numbers `below`."""
    most = int(values.max(initial=0)) if below is None else below - 1
    dtype = next(np.dtype(name) for name in TOKEN_TYPES if most <= np.iinfo(name).max)
    data = npy_bytes(values.astype(dtype))
    facts = {"n_tokens": len(values), "data_offset": npy_header(data).data_offset}
    return Member(kind=TOKENS.name, data=data, facts=dict(facts), words={"dtype": dtype.str})


def tokens_problems(member: Member) -> Iterator[str]:
    """Compare the header with the columns."""
    try:
        header = npy_header(member.data)
    except NpyError as error:
        yield str(error)
        return
    found = (header.version, header.dtype.str, header.shape, header.data_offset)
    wanted = (1, member.words["dtype"], (member.facts["n_tokens"],), member.facts["data_offset"])
    if found != wanted:
        yield f"has (version, dtype, shape, data offset) {found}, but the manifest says {wanted}"
    elif header.dtype.str not in TOKEN_TYPES:
        yield f"holds {header.dtype}; legal are uint8, uint16 and uint32"


TOKENS = Kind(
    name="tokens",
    facts={"n_tokens": int, "data_offset": int},
    words=("dtype",),
    check=tokens_problems,
)
"""The kind of token ids. Texts are packed into rows by `n_tokens` alone, before a byte of them is read."""
