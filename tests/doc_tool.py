"""The scripts of docs/site/, which are in no package."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

SITE = Path(__file__).parents[1] / "docs/site"


def doc_tool(name: str) -> ModuleType:
    """A script of docs/site/."""
    spec = spec_from_file_location(name, SITE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
