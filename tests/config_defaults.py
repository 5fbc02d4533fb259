"""The defaults of every config of the package, as tests/config_defaults.json keeps them.

python tests/config_defaults.py     writes the file again; it refuses a changed default whose version did not grow
"""

import json
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import maskstream
from maskstream.shards.config import Config, known_configs

GOLDEN = Path(__file__).with_suffix(".json")
RESOLVED = {"VideoData.output": "rgb"}
"""Defaults that may differ from what they were, because what they resolve to is in the identity: a run that was begun
with the former one resumes where that is the same, and is refused elsewhere.
"""


def package_configs() -> list[type[Config]]:
    """Every config class of the package, all of whose modules are imported."""
    (root,) = map(Path, maskstream.__path__)
    for path in sorted(path for room in root.iterdir() for path in (room, *room.rglob("*.py"))):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        if path.suffix == ".py" and path.stem != "__main__":
            import_module(name.removesuffix(".__init__"))
    return [cls for cls in known_configs() if cls.__module__.startswith("maskstream.")]


def defaults_of(cls: type[Config]) -> dict[str, Any]:
    """The version of a class, and of each field the default, or "required"."""
    made: dict[str, Any] = {"version": cls.version}
    for f in fields(cls):
        if f.metadata.get("not_saved"):
            continue
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if isinstance(default, Config):
            default = default.to_dict(defaults=True)
        made[f.name] = "required" if default is MISSING else _plain(default)
    return made


def changed_defaults(golden: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The defaults that differ from the golden ones though their class's version is the same.

    A config that is a default may have got new fields, whose defaults leave it what it was.
    """
    return [
        f"{kind}.{name}: {golden[kind][name]!r} in {GOLDEN.name}, {now!r} in the code"
        for kind in golden.keys() & here.keys()
        for name, now in here[kind].items()
        if here[kind]["version"] <= golden[kind]["version"]
        and not _same(golden[kind].get(name, now), now)
        and RESOLVED.get(f"{kind}.{name}") != golden[kind][name]
    ]


def _same(golden: Any, now: Any) -> bool:
    if isinstance(golden, dict) and isinstance(now, dict):
        return all(name in now and _same(value, now[name]) for name, value in golden.items())
    return bool(golden in (now, "required"))


def read_golden() -> dict[str, Any]:
    """What the file holds."""
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    return golden


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


if __name__ == "__main__":
    here = {cls.kind(): defaults_of(cls) for cls in package_configs()}
    if GOLDEN.exists() and (changed := changed_defaults(read_golden(), here)):
        raise SystemExit("let the class's version grow first: " + "; ".join(changed))
    GOLDEN.write_text(json.dumps(here, indent=1, sort_keys=True) + "\n")
