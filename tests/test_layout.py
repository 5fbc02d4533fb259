"""The rules of the layout: which folder may import which, and that no file opens a door to code in data."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("preprocess", "shards", "pipelines", "train")
MAY_IMPORT = {"shards": set(), "preprocess": {"shards"}, "pipelines": {"shards"}, "train": {"pipelines", "shards"}}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def sibling_imports(path: Path) -> set[str]:
    """The root folders that a file imports from, absolute or relative."""
    package = ("maskstream", *path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [(*base, *(node.module or "").split("."))] if node.module else [(*base, a.name) for a in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "maskstream" and len(name) > 1 and name[1] in FOLDERS:
                found.add(name[1])
            assert name[0] not in FOLDERS, f"{path}: import {name[0]} through maskstream (relative imports do)"
    return found - {package[1]}


def test_the_folders_are_there():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_data_walks_forward_only(folder):
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == folder:
            assert sibling_imports(path) <= MAY_IMPORT[folder], path


def test_the_import_check_sees_what_it_should(tmp_path):
    assert "shards" in set().union(*(sibling_imports(p) for p in FILES if p.is_relative_to(ROOT / "pipelines")))


BANNED = {
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "np.random.seed",
    "random.seed",
    "torch.manual_seed",
    "eval",
    "exec",
}


def shielded(tree: ast.AST) -> set[int]:
    """Lines inside `with torch.random.fork_rng(...)`, where a seed is put back afterwards."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.With) and "fork_rng" in ast.unparse(n.items[0])]
    return {line for block in blocks for line in range(block.lineno, (block.end_lineno or 0) + 1)}


def test_no_pickle_and_no_global_random_state():
    for path in FILES:
        tree = ast.parse(path.read_text())
        safe = shielded(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.lineno not in safe:
                called = ast.unparse(node.func)
                assert called not in BANNED, f"{path}:{node.lineno} calls {called}"
                loads_pickles = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "True" for k in node.keywords)
                assert not loads_pickles, f"{path}:{node.lineno} allows pickles"


def test_the_import_name_reaches_the_folders():
    import maskstream.pipelines
    import maskstream.shards

    assert Path(maskstream.pipelines.__file__).resolve() == ROOT / "pipelines/__init__.py"
    assert Path(maskstream.shards.__file__).resolve() == ROOT / "shards/__init__.py"
