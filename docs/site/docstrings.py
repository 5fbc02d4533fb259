"""A griffe extension that completes docstrings for the reference: one table row per parameter, field and property.

The description of a dataclass field comes from the string under it, from an Args or Attributes section, from the help
of its command-line option, or from the same field of a base class. All fields become one Args section of their class,
whose table also shows type and default. Properties become an Attributes section. The fields of a config that a function
takes as keyword arguments (`takes_fields`) become its parameters.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from inspect import cleandoc

import griffe

_SECTION = re.compile(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", re.MULTILINE)
_ITEM = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n(?: {5,}.*|(?=\n {5})))*)", re.MULTILINE)
_TAKES_FIELDS = re.compile(r"takes_fields\((\w+)\)")
TABLED = "maskstream_tabled"
"""Set in `extra` of an object all of whose parameters are rows of its table, so that no signature is needed."""
_SHOWN = ("__init__", "__call__", "__iter__", "__len__")
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
            if not isinstance(member, griffe.Attribute) or "property" in member.labels:
                continue
            text = cleandoc(member.docstring.value) if member.docstring else _strip_flag(member.annotation)[1]
            if text:
                found[name] = text
        if base.docstring:
            for section in _SECTION.finditer(base.docstring.value):
                found |= {name: cleandoc(text) for name, text in _ITEM.findall(section[1])}
    return found


def _strip_flag(annotation: str | griffe.Expr | None) -> tuple[str | griffe.Expr | None, str]:
    """The type of a setting `Annotated[TYPE, Flag(HELP, ...)]`, and the help; "" if it has only limits."""
    if not isinstance(annotation, griffe.ExprSubscript) or str(annotation.left) != "Annotated":
        return annotation, ""
    slices = annotation.slice
    assert isinstance(slices, griffe.ExprTuple)
    kind, flag = slices.elements[:2]
    words = flag.arguments if isinstance(flag, griffe.ExprCall) else []
    help_text = next((str(word) for word in words if not isinstance(word, griffe.ExprKeyword)), "''")
    return kind, str(ast.literal_eval(help_text))


def _complete_class(cls: griffe.Class) -> list[griffe.Object]:
    """Complete the docstring of a class, and return the members that need no entry of their own."""
    described = describe_fields(cls)
    fields = [p.name for p in cls.parameters if p.name != "self"] if "dataclass" in cls.labels else []
    attributes: dict[str, str] = {}
    tabled: list[griffe.Object] = []
    for name, member in cls.members.items():
        if isinstance(member, griffe.Attribute) or (name.startswith("_") and name not in _SHOWN):
            assert isinstance(member, griffe.Object)
            tabled.append(member)
        is_tabled = isinstance(member, griffe.Attribute) and name[0] != "_" and name not in fields
        if is_tabled and ("property" in member.labels or name in described):
            text = described.get(name) or _find_inherited(cls, name)
            attributes[f"{name} ({member.annotation})" if member.annotation else name] = text
    for parameter in cls.parameters if fields else ():
        parameter.annotation = _strip_flag(parameter.annotation)[0]
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
    _take_fields(function)
    names = {p.name for p in function.parameters} - {"self", "cls"}
    described = {name for section in _SECTION.findall(function.docstring.value) for name, _ in _ITEM.findall(section)}
    function.extra["mkdocstrings"][TABLED] = len(names) > _FEW and names <= described


def _take_fields(function: griffe.Function) -> None:
    """Replace the config of a function that takes its fields as keyword arguments by these."""
    names = [found[1] for one in function.decorators if (found := _TAKES_FIELDS.match(str(one.value)))]
    if not names or not function.docstring:
        return
    config = function.modules_collection[function.resolve(names[0])]
    described = describe_fields(config)
    *_, last = function.parameters
    del function.parameters[last.name]
    rows = {}
    for field in config.parameters:
        if field.name != "self" and field.name not in function.parameters:
            kind = _strip_flag(field.annotation)[0]
            keyword = griffe.ParameterKind.keyword_only
            function.parameters.add(griffe.Parameter(field.name, annotation=kind, kind=keyword, default=field.default))
            rows[field.name] = described.get(field.name) or f"See `{config.name}`."
    entry = re.compile(rf"^    (?:\*\*)?{last.name}: .*\n(?: {{5,}}.*\n)*", re.MULTILINE)
    lines = "\n".join(_make_section("", rows).split("\n")[3:]) + "\n"
    function.docstring.value = entry.sub(lambda _: lines, function.docstring.value + "\n")


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
