"""Packages whose names are imported when they are asked for."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str], modules: str = "") -> Callable[[str], object]:
    """The `__getattr__` of a package.

    homes: its modules, and the names that each has for it, with spaces between them. modules: those that are names
    themselves. So a process imports what it needs of the package, such as a loader the files of its own modality.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def found(name: str) -> object:
        is_module = name in modules.split()
        if not is_module and name not in home_of:
            raise AttributeError(f"module {package} has no attribute {name}")
        with importing():
            home = import_module(f".{name if is_module else home_of[name]}", package)
        value: object = home if is_module else getattr(home, name)
        setattr(sys.modules[package], name, value)
        return value

    return found


@contextmanager
def importing() -> Iterator[None]:
    """Imports what stays for good: no collection of garbage looks at it meanwhile, which takes a fifth of the time of
    importing torch and what follows it.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # all objects are now old ones
        gc.enable()
