"""Text members: `json`, whose columns are signals of the sample; `text` and `bytes`, without columns; and `texts` and
`tokens`, which store token ids as NPY arrays of uint8, uint16 or uint32.

`texts` contains the ids of all texts of a sample, concatenated, (N,). Each text has a role. `lengths` and `roles` are
columns, so a loader reads only the texts that it returns. `words.npy`, of the kind `tokens`, contains the word number
of each token, counted from 0 in each text. All texts share one member and so one tar header, and the manifest alone
locates the bytes that a row needs.

`tokens` is one integer per token of a text, (N,): ids in `tokens.npy`, word numbers in `words.npy`, and word classes in
`classes.npy`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.media.npy import NpyHeader

from .arrays import check_header_of, header_problems, npy_member
from .member import Kind, Member


def json_member(value: Any, signals: Mapping[str, float] | None = None) -> Member:
    """Return a JSON value as a member, with the `SIGNALS` of its sample, if they were measured."""
    return Member(kind=JSON.name, data=json.dumps(value).encode(), facts={**(signals or {})})


def find_json_problems(member: Member) -> Iterator[str]:
    """Parse the JSON."""
    try:
        json.loads(member.data)
    except (ValueError, RecursionError) as error:
        yield f"is not valid JSON ({error})"


def make_text_member(text: str) -> Member:
    """Return a text as a member, in UTF-8."""
    return Member(kind=TEXT.name, data=text.encode())


SIGNALS = (
    "brightness",
    "contrast",
    "saturation",
    "entropy",
    "sharpness",
    "borders",
    "dark",
    "motion",
    "still",
    "cuts",
    "black_s",
    "frozen_s",
    "loudness_db",
    "clipped",
    "silent",
    "characters",
    "symbols",
    "repetition",
)
"""Signals that may be measured for a sample while it is written, as columns of its `json` (docs/curation.md)."""
LANGUAGE = "language_"
"""Prefix of signals with the probability that a text is in a language, such as language_en."""
JSON = Kind(name="json", facts=dict.fromkeys(SIGNALS, float), family=LANGUAGE, check=find_json_problems)
TEXT = Kind(name="text")
BYTES = Kind(name="bytes")


ROLES = ("caption", "question", "answer", "choice", "rationale", "phrase", "passage")
"""Role of a text that accompanies an image. Its index here is its number in shards, so new roles are appended."""


def make_texts_member(texts: Sequence[tuple[str, npt.NDArray[np.integer]]], below: int) -> Member:
    """Return the texts of a sample, each a role and ids (n,), all of them below `below`, as a member."""
    ids = np.concatenate([ids for _, ids in texts])
    tokens = make_tokens_member(ids, below=below)
    lists = {
        "roles": np.array([ROLES.index(role) for role, _ in texts], np.int64),
        "lengths": np.array([len(ids) for _, ids in texts], np.int64),
    }
    return replace(tokens, kind=TEXTS.name, lists=lists)


def find_texts_problems(member: Member) -> Iterator[str]:
    """Compare the header and the lists with the columns."""
    yield from find_tokens_problems(member)
    roles, lengths = member.lists["roles"], member.lists["lengths"]
    if len(roles) != len(lengths) or (lengths < 1).any() or lengths.sum() != member.facts["n_tokens"]:
        yield f"its texts have {lengths.tolist()} tokens and {len(roles)} roles, for {member.facts['n_tokens']} tokens"
    if ((roles < 0) | (roles >= len(ROLES))).any():
        yield f"has the roles {roles.tolist()}; expected 0 to {len(ROLES) - 1}: {', '.join(ROLES)}"


TEXTS = Kind(
    name="texts",
    facts={"n_tokens": int, "data_offset": int},
    words=("dtype",),
    lists=("roles", "lengths"),
    check=find_texts_problems,
)
"""The kind of the texts that accompany an image. A row's texts are drawn before any of their bytes are read."""


TOKEN_TYPES = ("|u1", "<u2", "<u4")
"""Allowed dtypes."""


def make_tokens_member(values: npt.NDArray[np.integer], below: int | None = None) -> Member:
    """Store non-negative integers (N,) in the narrowest dtype that fits them, or all numbers below `below`."""
    most = int(values.max(initial=0)) if below is None else below - 1
    dtype = next(np.dtype(name) for name in TOKEN_TYPES if most <= np.iinfo(name).max)
    return npy_member(TOKENS.name, values.astype(dtype), {"n_tokens": len(values)}, {"dtype": dtype.str})


@check_header_of
def find_tokens_problems(member: Member, header: NpyHeader) -> Iterator[str]:
    """Compare the header with the columns."""
    yield from header_problems(member, header, member.words["dtype"], (int(member.facts["n_tokens"]),))
    if header.dtype.str not in TOKEN_TYPES:
        yield f"holds {header.dtype}; expected uint8, uint16 and uint32"


TOKENS = Kind(
    name="tokens",
    facts={"n_tokens": int, "data_offset": int},
    words=("dtype",),
    check=find_tokens_problems,
)
"""The kind of token ids. Texts are packed into rows by `n_tokens` alone, before a byte of them is read."""
