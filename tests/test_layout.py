"""The rules of the layout: which folder may import which, and that no file opens a door to code in data."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("preprocess", "samples", "shards", "pipelines", "train")
ROOMS = {
    "shards": (),
    "shards/stores": ("shards",),
    "shards/media": ("shards", "shards/stores"),
    "shards/members": ("shards", "shards/stores", "shards/media"),
    "shards/format": ("shards", "shards/stores", "shards/media", "shards/members"),
    "preprocess/executors": ("shards",),
    "preprocess/raw": ("shards", "shards/stores", "shards/format", "preprocess"),
    "preprocess/encode": (
        "shards",
        "shards/media",
        "shards/members",
        "shards/format",
        "preprocess",
        "preprocess/raw",
        "preprocess/executors",
    ),
    "preprocess/datasets": (
        "shards",
        "shards/media",
        "shards/members",
        "shards/format",
        "preprocess",
        "preprocess/raw",
        "preprocess/encode",
    ),
    "preprocess/job": (
        "shards/*",
        "preprocess",
        "preprocess/raw",
        "preprocess/encode",
        "preprocess/datasets",
        "preprocess/executors",
    ),
    "preprocess/foreign": (
        "shards/*",
        "preprocess",
        "preprocess/raw",
        "preprocess/encode",
        "preprocess/executors",
        "preprocess/job",
    ),
    "preprocess/versions": (
        "shards/*",
        "preprocess",
        "preprocess/raw",
        "preprocess/datasets",
        "preprocess/encode",
        "preprocess/executors",
        "preprocess/job",
    ),
    "preprocess/curate": ("shards/*", "preprocess", "preprocess/versions"),
    "preprocess": ("shards",),
    "samples": (
        "shards",
        "shards/media",
        "shards/members",
        "preprocess",
        "preprocess/raw",
        "preprocess/encode",
        "preprocess/datasets",
    ),
    "pipelines/stream": ("shards", "shards/stores", "shards/format", "pipelines"),
    "pipelines/augment": ("shards", "pipelines", "pipelines/stream"),
    "pipelines/masks": ("shards", "pipelines", "pipelines/stream"),
    "pipelines/flow": ("shards", "shards/media", "pipelines", "pipelines/stream", "pipelines/augment"),
    "pipelines/decode": ("shards", "shards/stores", "shards/media", "pipelines", "pipelines/augment", "pipelines/flow"),
    "pipelines/modalities": ("shards/*", "pipelines", "pipelines/*"),
    "pipelines": ("shards/*", "pipelines/*"),
    "train/core": (
        "shards",
        "shards/stores",
        "shards/format",
        "pipelines/stream",
        "pipelines/masks",
        "pipelines/modalities",
    ),
    "train/nn": ("shards", "pipelines/*", "train/core"),
    "train/evaluate": ("shards/*", "pipelines/*", "train/core", "train/nn"),
    "train/papers": ("shards/*", "pipelines", "pipelines/*", "train/core", "train/nn", "train/evaluate"),
    "train/export": ("shards/*", "pipelines/*", "train", "train/core", "train/nn", "train/evaluate", "train/papers"),
    "train": (
        "shards",
        "shards/stores",
        "shards/members",
        "shards/format",
        "pipelines/stream",
        "pipelines/modalities",
        "train/*",
    ),
}
"""Which rooms each room may import; a star stands for all of a folder's rooms, a folder alone for its own files."""

NOT_YET: set[tuple[str, str]] = set()
"""Imports that go up; none is left when the seams are done."""

FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file, which is parsed once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def room_of(parts: tuple[str, ...]) -> str:
    """The room that a module or a file lies in, of its path from the root."""
    return "/".join(parts[:2]) if "/".join(parts[:2]) in ROOMS else parts[0]


def modules(path: Path) -> set[tuple[str, ...]]:
    """What a file imports from the package, absolute or relative, without `maskstream`: modules, and names in them."""
    parts = path.relative_to(ROOT).parts
    own = parts[2:-1] if parts[0] == "src" else parts[:-1]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            base = ("maskstream", *own)[: len(own) + 2 - node.level] if node.level else ()
            name = (*base, *(node.module.split(".") if node.module else ()))
            found |= {(*name, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
    for name in found:
        assert name[0] not in FOLDERS, f"{path}: import {name[0]} through maskstream"
    return {name[1:] for name in found if name[0] == "maskstream"}


def imported(path: Path) -> set[str]:
    """The rooms that a file of the five folders imports from, but its own."""
    names = modules(path)
    for name in names:
        assert name[:1] in {(f,) for f in FOLDERS}, f"{path} imports {'.'.join(name)}, which stands above it"
    return {room_of(name) for name in names} - {room_of(path.relative_to(ROOT).parts)}


OWN = [path for path in sorted((ROOT / "src" / "maskstream").rglob("*.py")) if not {*path.parts} & {*FOLDERS}]


def test_no_files_import_each_other_in_a_circle():
    """Imports within functions and for types count too."""

    def name_of(path: Path) -> tuple[str, ...]:
        parts = path.relative_to(ROOT / "src" / "maskstream" if "src" in path.relative_to(ROOT).parts else ROOT).parts
        return parts[:-1] if path.name == "__init__.py" else (*parts[:-1], path.stem)

    files = {name_of(path): path for path in (*FILES, *OWN)}
    graph = {
        own: {to for name in modules(path) if (to := name if name in files else name[:-1]) in files and to != own}
        for own, path in files.items()
    }
    TopologicalSorter(graph).prepare()


def test_imports_are_absolute_across_rooms_and_relative_within_a_folder():
    for path in (*FILES, *OWN):
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, f"{path.relative_to(ROOT)}:{node.lineno}: write from maskstream.... import"


def test_a_class_name_has_one_meaning():
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path in (*FILES, *OWN):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_the_folders_are_there():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(FOLDERS)


@pytest.mark.parametrize("room", ROOMS)
def test_data_walks_forward_only(room):
    legal = set(ROOMS[room]) | {one for one in ROOMS for star in ROOMS[room] if f"{one.split('/')[0]}/*" == star}
    for path in FILES:
        is_door = path.parent.parent == ROOT and path.name == "__init__.py"
        if room_of(path.relative_to(ROOT).parts) == room and not is_door:
            up = {to for to in imported(path) - legal if (room, to) not in NOT_YET}
            assert not up, f"{path.relative_to(ROOT)} imports {', '.join(sorted(up))}"


def test_a_paper_imports_no_other_paper():
    for path in (ROOT / "train/papers").glob("*/*.py"):
        others = {name[2] for name in modules(path) if name[:2] == ("train", "papers")} - {path.parent.name}
        assert not others, f"{path.relative_to(ROOT)} imports the papers {others}"


def test_a_recipe_lies_in_the_folder_of_its_paper():
    from maskstream.train import RECIPES
    from maskstream.train.papers import FAMILIES

    folders = {name: make.__module__.split(".")[-2:] for name, make in RECIPES.items()}
    assert len(folders) > 70
    files = {name: found[1] for name, found in folders.items() if found[1] != "recipe"}
    assert set(files.values()) == set(FAMILIES)
    assert folders["mgmae-tiny"] == ["videomae", "mgmae"]
    assert folders["meshmask-tiny"][0] == "meshmask"


def test_nothing_is_excused_that_no_longer_happens():
    there = {(room_of(path.relative_to(ROOT).parts), to) for path in FILES for to in imported(path)}
    assert there >= NOT_YET, f"take {NOT_YET - there} off the list"


def test_the_import_check_sees_what_it_should():
    assert "shards/format" in set().union(*(imported(p) for p in FILES if p.is_relative_to(ROOT / "pipelines")))


ABOVE = ("pages/figures", "modality.py", "bench.py", "pages", "modalities", "cli")
"""Of src/maskstream, from below: each imports itself, those before it, and the five folders."""


def test_pages_stand_below_modalities_and_commands_above_all():
    source = ROOT / "src" / "maskstream"

    def level(path):
        return max(i for i, room in enumerate(ABOVE) if room == path[: len(room)]) if path.startswith(ABOVE) else None

    for path in OWN:
        parts = path.relative_to(source).parts
        own = 0 if parts[:2] == ("pages", "figures") else level("/".join(parts))
        for name in modules(path):
            if own is not None and name[0] not in FOLDERS:
                to = f"{name[0]}.py" if (source / f"{name[0]}.py").exists() else "/".join(name)
                found = 0 if to.startswith("pages/figures") else level(to)
                assert found is None or found <= own, f"{path.relative_to(ROOT)} imports {to}"


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


OWN_PROCESSES = ("pickle.load", "pickle.loads")
"""What `shards/process_main.py` may call: it reads what this package's own processes send each other."""


def shielded(path: Path) -> set[int]:
    """Lines inside `with torch.random.fork_rng(...)`, where a seed is put back afterwards."""
    blocks = [n for n in nodes(path) if isinstance(n, ast.With) and "fork_rng" in ast.unparse(n.items[0])]
    return {line for block in blocks for line in range(block.lineno, (block.end_lineno or 0) + 1)}


def test_no_pickle_and_no_global_random_state():
    for path in FILES:
        safe = shielded(path)
        for node in nodes(path):
            if isinstance(node, ast.Call) and node.lineno not in safe:
                called = ast.unparse(node.func)
                if called == "torch.load" and any(
                    k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords
                ):
                    continue  # it runs no code that is pickled
                if called in OWN_PROCESSES and path == ROOT / "shards" / "process_main.py":
                    continue
                assert called not in BANNED, f"{path}:{node.lineno} calls {called}"
                loads_pickles = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "True" for k in node.keywords)
                assert not loads_pickles, f"{path}:{node.lineno} allows pickles"


PACKAGE, USER, RUN, DATA = "this package", "the command line or the caller", "a run's folder", "data"
NAMES_CODE = {
    "shards/jit.py": {"import_module": PACKAGE},
    "shards/lazy.py": {"import_module": PACKAGE},
    "shards/process_main.py": {"import_module": PACKAGE, "runpy.run_path": USER},
    "preprocess/datasets/__init__.py": {"import_module": PACKAGE, "imported": PACKAGE, "named": USER},
    "shards/config/assignments.py": {"find_class": USER, "type(config).from_dict": USER},
    "shards/config/base.py": {"find_class": USER, "cls.from_dict": USER, "imported": USER},
    "shards/format/tokenizer.py": {"TokenizerFacts.from_data": DATA},
    "shards/named.py": {"import_module": USER, "imported": USER},
    "pipelines/augment/transform.py": {"imported": USER},
    "pipelines/flow/choice.py": {"imported": USER},
    "pipelines/modalities/mixture.py": {"cls.from_data": DATA},
    "train/core/data.py": {"DataMixture.from_dict": RUN},
    "train/core/weights.py": {"ModelConfig.from_dict": RUN, "TokenGrid.from_dict": RUN},
    "train/core/model.py": {"import_module": PACKAGE},
    "train/core/run_folder.py": {"Recipe.from_dict": RUN},
    "train/papers/__init__.py": {"import_module": PACKAGE},
    "train/recipes.py": {"named": USER},
    "src/maskstream/cli/papers.py": {"imported": USER},
    "src/maskstream/pages/report/report.py": {"ProbeResult.from_dict": RUN},
    "src/maskstream/modalities/__init__.py": {"named": USER},
    "src/maskstream/modality.py": {"named": USER},
}
"""All calls that turn names into code or dicts into configs, and where what they are given comes from (SECURITY.md)."""


def test_what_is_read_from_data_names_no_code():
    """A new call joins the list above; one that is given data is `from_data`, which imports nothing."""
    doors = {"from_dict", "from_data", "imported", "named", "import_module", "find_class", "__import__", "run_path"}
    source = ROOT / "src" / "maskstream"
    own = [path for path in sorted(source.rglob("*.py")) if path.relative_to(source).parts[0] not in FOLDERS]
    found: dict[str, set[str]] = {}
    for path in (*FILES, *own):
        for node in nodes(path):
            if isinstance(node, ast.Call) and (called := ast.unparse(node.func)).rpartition(".")[2] in doors:
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(called)
    assert found == {path: {*calls} for path, calls in NAMES_CODE.items()}
    for calls in NAMES_CODE.values():
        assert all(called.endswith(".from_data") == (origin == DATA) for called, origin in calls.items())


def test_ffmpeg_opens_media_at_one_place_only():
    """`av.open` elsewhere writes: a name or bytes that it reads could make FFmpeg read other files and URLs."""
    for path in FILES:
        if path.name == "local_media.py":
            continue
        for node in nodes(path):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open":
                writes = len(node.args) > 1 and ast.unparse(node.args[1]) == "'w'"
                if path.parent.name == "cards":  # lines for processes without this package, which open no other file
                    writes = "options={'protocol_whitelist': ''}" in ast.unparse(node)
                assert writes, f"{path}:{node.lineno} reads media; use shards/media/local_media.py"


def test_docstrings_are_text():
    """Python 3.13 refuses to compile a docstring with half of a surrogate pair."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in (*FILES, *OWN):
        for node in nodes(path):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                assert not re.search(r"[\ud800-\udfff]", text), path


def test_the_import_name_reaches_the_folders():
    import maskstream.pipelines
    import maskstream.shards

    assert Path(maskstream.pipelines.__file__).resolve() == ROOT / "pipelines/__init__.py"
    assert Path(maskstream.shards.__file__).resolve() == ROOT / "shards/__init__.py"


TOKENS = {
    "maskstream": 32,
    "maskstream/cli": 188,
    "maskstream/modalities": 46,
    "maskstream/pages": 517,
    "pipelines": 15,
    "pipelines/augment": 51,
    "pipelines/decode": 138,
    "pipelines/flow": 131,
    "pipelines/masks": 393,
    "pipelines/modalities": 1036,
    "pipelines/stream": 341,
    "preprocess": 10,
    "preprocess/curate": 252,
    "preprocess/datasets": 354,
    "preprocess/encode": 620,
    "preprocess/executors": 42,
    "preprocess/foreign": 119,
    "preprocess/job": 211,
    "preprocess/raw": 139,
    "preprocess/versions": 225,
    "samples": 226,
    "shards": 174,
    "shards/format": 287,
    "shards/media": 197,
    "shards/members": 63,
    "shards/stores": 210,
    "train": 85,
    "train/core": 370,
    "train/evaluate": 217,
    "train/export": 135,
    "train/nn": 261,
    "train/papers": 1034,
}
"""The most Python tokens, in hundreds, that each room may have. A change that raises a number says in its commit what
pays for it; one that makes a room smaller lowers the number."""

NO_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def count_tokens(path: Path) -> int:
    """The tokens of a file without comments and docstrings, which no width of lines changes."""
    strings = {
        (node.value.lineno, node.value.col_offset)
        for node in nodes(path)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return sum(token.type not in NO_TOKENS and token.start not in strings for token in tokens)


def test_no_room_grows_unseen():
    sizes: defaultdict[str, int] = defaultdict(int)
    for path in (*FILES, *OWN):
        parts = path.relative_to(ROOT).parts
        sizes["/".join(parts[1:-1][:2]) if parts[0] == "src" else room_of(parts)] += count_tokens(path)
    assert sizes.keys() == TOKENS.keys()
    grown = {room: (size, TOKENS[room] * 100) for room, size in sizes.items() if size > TOKENS[room] * 100}
    assert not grown, f"rooms with more tokens than TOKENS allows: {grown}"
    shrunk = {room: -(-size // 100) for room, size in sizes.items() if size < TOKENS[room] * 95 - 100}
    assert not shrunk, f"lower the numbers of these rooms in TOKENS: {shrunk}"
