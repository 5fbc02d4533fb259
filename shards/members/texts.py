"""The kind `texts`: the token ids of all texts of a sample, one text behind the other, uint8, uint16 or uint32 (N,), as
NPY.

Each text has a role. `lengths` and `roles` are columns, so a loader reads only the texts that it shows. `words.npy`, of
the kind `tokens`, holds the number of each token's word, from 0 in each text.

One member has all texts, so any number of them costs one tar header, and the manifest alone says which bytes a row
needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .member import Kind, Member
from .tokens import tokens_member, tokens_problems

ROLES = ("caption", "question", "answer", "choice", "rationale", "phrase", "passage")
"""What a text is to its image. Its place here is its number in shards: new roles go to the end."""


def texts_member(texts: Sequence[tuple[str, npt.NDArray[np.integer]]], below: int) -> Member:
    """The texts of a sample, each its role and its ids (n,), all of them below `below`, as a member."""
    ids = np.concatenate([ids for _, ids in texts])
    plain = tokens_member(ids, below=below)
    lists = {
        "roles": np.array([ROLES.index(role) for role, _ in texts], np.int64),
        "lengths": np.array([len(ids) for _, ids in texts], np.int64),
    }
    return Member(kind=TEXTS.name, data=plain.data, facts=plain.facts, words=plain.words, lists=lists)


def texts_problems(member: Member) -> Iterator[str]:
    """Compare the header and the lists with the columns."""
    yield from tokens_problems(member)
    roles, lengths = member.lists["roles"], member.lists["lengths"]
    if len(roles) != len(lengths) or (lengths < 1).any() or lengths.sum() != member.facts["n_tokens"]:
        yield f"its texts have {lengths.tolist()} tokens and {len(roles)} roles, for {member.facts['n_tokens']} tokens"
    if ((roles < 0) | (roles >= len(ROLES))).any():
        yield f"has the roles {roles.tolist()}; legal are 0 to {len(ROLES) - 1}: {', '.join(ROLES)}"


TEXTS = Kind(
    name="texts",
    facts={"n_tokens": int, "data_offset": int},
    words=("dtype",),
    lists=("roles", "lengths"),
    check=texts_problems,
)
"""The kind of the texts beside an image. Which of them a row shows is drawn before a byte of them is read."""
