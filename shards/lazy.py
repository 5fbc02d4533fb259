"""Packages whose names are imported when they are asked for."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str], modules: str = "") -> Callable[[str], object]:
    """The `__getattr__` of a package.

    homes: its modules, and the names that each has for it, with spaces between them. modules: those that are names
    themselves. So a process imports what it needs of the package, such as a loader the files of its own modality.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def found(name: str) -> object:
        if name in modules.split():
            return import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package} has no attribute {name}")
        value: object = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return found
