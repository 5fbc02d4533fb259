"""A griffe extension that completes docstrings for the reference: one table row per parameter, field and property.

The description of a dataclass field comes from the string under it, from an Args or Attributes section, or from the
same field of a base class. All fields become one Args section of their class, whose table also shows type and default.
Properties become an Attributes section.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc

import griffe

_SECTION = re.compile(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", re.MULTILINE)
_ITEM = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n(?: {5,}.*|(?=\n {5})))*)", re.MULTILINE)
TABLED = "maskstream_tabled"
"""Set in `extra` of an object all of whose parameters are rows of its table, so that no signature is needed."""
_FEW = 4
"""A function with more parameters shows them in its table only."""


class Tables(griffe.Extension):
    """Rewrites the docstrings of a package after griffe has loaded it."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Complete every docstring of the package."""
        tabled: list[griffe.Object] = []
        for obj in _walk(pkg):
            if isinstance(obj, griffe.Class):
                tabled += _complete_class(obj)
            elif isinstance(obj, griffe.Function):
                _complete_function(obj)
        for member in tabled:  # only now, as subclasses take descriptions from their bases
            assert member.parent is not None
            member.parent.del_member(member.name)


def _walk(obj: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """All objects below a module, classes after the classes that they contain."""
    for member in obj.members.values():
        if isinstance(member, griffe.Module | griffe.Class):
            yield from _walk(member)
        if isinstance(member, griffe.Object):
            yield member


def unwrap(text: str) -> str:
    """A docstring whose first paragraph is one line, as tables of names show it."""
    first, *rest = text.split("\n\n", 1)
    return "\n\n".join([" ".join(first.split("\n")), *rest])


def first_sentence(text: str) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=[.:]) (?=[A-Z`])", unwrap(text).split("\n", 1)[0], maxsplit=1)[0]


def describe_fields(cls: griffe.Class) -> dict[str, str]:
    """The description of each documented field of a class and of its bases."""
    found: dict[str, str] = {}
    for base in [*reversed(cls.mro()), cls]:
        for name, member in base.members.items():
            if isinstance(member, griffe.Attribute) and member.docstring and "property" not in member.labels:
                found[name] = cleandoc(member.docstring.value)
        if base.docstring:
            for section in _SECTION.finditer(base.docstring.value):
                found |= {name: cleandoc(text) for name, text in _ITEM.findall(section[1])}
    return found


def _complete_class(cls: griffe.Class) -> list[griffe.Object]:
    """Complete the docstring of a class, and return the members that need no entry of their own."""
    described = describe_fields(cls)
    fields = [p.name for p in cls.parameters if p.name != "self"] if "dataclass" in cls.labels else []
    attributes: dict[str, str] = {}
    tabled: list[griffe.Object] = []
    for name, member in cls.members.items():
        if isinstance(member, griffe.Attribute) or (name[0] == "_" and (name == "__post_init__" or name[1] != "_")):
            assert isinstance(member, griffe.Object)
            tabled.append(member)
        if isinstance(member, griffe.Attribute) and name[0] != "_" and name not in fields:
            if "property" in member.labels or name in described:
                text = described.get(name) or _find_inherited(cls, name)
                attributes[f"{name} ({member.annotation})" if member.annotation else name] = text
    if cls.docstring:
        text = _SECTION.sub("", unwrap(cls.docstring.value))
        if fields:
            text += _make_section("Args", {name: described.get(name, "") for name in fields})
        if attributes:
            text += _make_section("Attributes", attributes)
        cls.docstring.value = text
        cls.extra["mkdocstrings"][TABLED] = bool(fields) and all(name in described for name in fields)
    return tabled


def _complete_function(function: griffe.Function) -> None:
    if not function.docstring:
        function.docstring = _find_docstring(function)
        return
    function.docstring.value = unwrap(function.docstring.value)
    names = {p.name for p in function.parameters} - {"self", "cls"}
    described = {name for section in _SECTION.findall(function.docstring.value) for name, _ in _ITEM.findall(section)}
    function.extra["mkdocstrings"][TABLED] = len(names) > _FEW and names <= described


def _find_inherited(cls: griffe.Class, name: str) -> str:
    """The docstring of a property, or of the property that it overrides."""
    for base in [cls, *cls.mro()]:
        member = base.members.get(name)
        if isinstance(member, griffe.Attribute) and member.docstring:
            return cleandoc(member.docstring.value)
    return ""


def _find_docstring(function: griffe.Function) -> griffe.Docstring | None:
    """The docstring of the method that a method overrides."""
    bases = function.parent.mro() if isinstance(function.parent, griffe.Class) else []
    for base in bases:
        member = base.members.get(function.name)
        if isinstance(member, griffe.Function) and member.docstring:
            return griffe.Docstring(unwrap(member.docstring.value), parent=function)
    return None


def _make_section(title: str, rows: dict[str, str]) -> str:
    lines = [f"    {name}: {text.replace(chr(10), chr(10) + ' ' * 8)}".rstrip() for name, text in rows.items()]
    return "\n".join(["", "", f"{title}:", *lines])
