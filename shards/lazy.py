"""Packages whose names are imported on first use."""

import gc
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, str], modules: str = "", former: Mapping[str, str] | None = None
) -> Callable[[str], object]:
    """Return the `__getattr__` of a package, so that a process imports only the parts that it uses.

    Args:
        package: Name of the package.
        homes: Modules of the package, and the public names that each defines, separated by spaces.
        modules: Modules that are public names themselves.
        former: Names of the previous release, and their current names; each use warns.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def found(name: str) -> object:
        if former is not None and name in former:
            text = f"{package}.{name} is now {package}.{former[name]}; the next release drops the old name"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return getattr(sys.modules[package], former[name])
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
    """Pause garbage collection during imports, whose objects are permanent. It would take a fifth of the time of
    importing torch and its dependents.
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
