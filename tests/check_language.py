"""Count the turns of phrase that do not read as native English, and fail if a count is above its limit.

    python tests/check_language.py            counts and limits, for pages, the changelog and code
    python tests/check_language.py --list 4   every match of pattern 4
    python tests/check_language.py --lower    lower each limit in language_limits.json to today's count; it never rises

Pages are README, CONTRIBUTING, SECURITY and docs without code blocks, code spans, links and tables that scripts write.
In code, docstrings, comments and strings of at least four words are read: errors, logs and help.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMITS = Path(__file__).with_name("language_limits.json")
ROOMS = ("shards", "preprocess", "samples", "pipelines", "train", "src/maskstream", "benchmarks", "docs/site")

PATTERNS = {
    "1 what as a noun": r"\bwhat\b(?![^.!?]*\?)",
    "2 things that say, tell, know": r"\b(?:says?|said|tells?|told|knows)\b",
    "3 that of, of which, of its own": r"\b(?:that|those) of\b|\bof which\b|\bof (?:its|their|your|our|one's) own\b",
    "4 is no X": r"\b(?:is|are|was|were) no\b(?! (?:longer|more|less)\b)",
    "5 house words": r"\bpictures?\b|\bsounds?\b|(?<!dataset )(?<!data )(?<!model )\bcards?\b|\bmend(?:s|ed)?\b"
    r"|\bmotions\b|\bwalks\b|\blaws?\b|\bcues?\b|\bheld out\b|\bshare of\b",
    "6 fragments": r"(?:^|[.!?:] )(?:Of|That of|Those|Whose|All that|Its) ",
    "7 agentless passive": r"\b(?:is|are) (?:wanted|taken|given|told|shown|meant|to be)\b",
    "8 fractions as prose": r"\b(?:in|of) 0\.\d+ of\b|\bin brackets\b|\bless the (?:smallest|largest)\b",
    "9 theirs": r"[,;] (?:theirs|ours|its own|the others'?)\b",
    "10 dangling prepositions": r"\b(?:of|with|for|from|into|at|than)[.;:](?:\s|$)|\bbut (?:with|of|for|in|by)\b",
    "11 bookish words": r"\b(?:anew|alike|beside|meanwhile|reckon(?:s|ed)?|in vain|for ever|goes on|so many|legal"
    r"|nobody|who(?:ever| wants)|seldom|likewise)\b",
}
COMPILED = {name: re.compile(pattern, re.IGNORECASE if name[:2] != "6 " else 0) for name, pattern in PATTERNS.items()}
GROUPS = ("pages", "changelog", "code")


def prose_of(text: str) -> str:
    """The prose of a Markdown page, its line numbers unchanged."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"^```.*?^```", blank, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- (\S+).*?-->.*?<!-- end of .*?-->", blank, text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "`x`", re.sub(r"<[^>]+>", blank, text))
    return re.sub(r"\]\([^)]*\)", "]", text)


def strings_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of the docstrings, comments, and strings of at least four words of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
    joined = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            joined |= {id(value) for value in node.values}
            words = "".join(value.value if isinstance(value, ast.Constant) else "{}" for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in joined:
            words = node.value
        else:
            continue
        if len(words.split()) >= 4 and not re.match(r"\s*<|.*\\[bwd(]", words):
            yield node.lineno, re.sub(r"`[^`\n]+`", "`x`", words)


def texts(group: str) -> Iterator[tuple[str, int, str]]:
    """File, line and text of a group."""
    if group == "code":
        for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
            for line, text in strings_of(path.read_text(encoding="utf-8")):
                yield str(path.relative_to(ROOT)), line, text
        return
    names = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
    pages = [*(ROOT / name for name in names), *sorted((ROOT / "docs").rglob("*.md"))]
    for path in [ROOT / "CHANGELOG.md"] if group == "changelog" else pages:
        for line, text in enumerate(prose_of(path.read_text(encoding="utf-8")).splitlines(), 1):
            yield str(path.relative_to(ROOT)), line, text


def matches(group: str) -> Iterator[tuple[str, str]]:
    """Every match in a group: the pattern, and file, line and the words around it."""
    for file, line, text in texts(group):
        for name, pattern in COMPILED.items():
            for match in pattern.finditer(text):
                around = " ".join(text[max(0, match.start() - 40) : match.end() + 40].split())
                yield name, f"{file}:{line}: {around}"


def counts() -> dict[str, dict[str, int]]:
    """The number of matches of each pattern in each group."""
    result = {group: dict.fromkeys(PATTERNS, 0) for group in GROUPS}
    for group in GROUPS:
        for name, _ in matches(group):
            result[group][name] += 1
    return result


def main() -> None:
    """Print the counts; exit with 1 if one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", metavar="NUMBER", help="print every match of a pattern")
    parser.add_argument("--group", choices=GROUPS, help="only list matches of this group")
    parser.add_argument("--lower", action="store_true", help="lower each limit to today's count")
    chosen = parser.parse_args()
    if chosen.list:
        for group in (chosen.group,) if chosen.group else GROUPS:
            print(*(place for name, place in matches(group) if name.split(" ")[0] == chosen.list), sep="\n")
        return
    today = counts()
    if chosen.lower:
        old = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
        lowered = {
            group: {name: min(n, old.get(group, {}).get(name, n)) for name, n in today[group].items()}
            for group in GROUPS
        }
        LIMITS.write_text(json.dumps(lowered, indent=1) + "\n")
    limits = json.loads(LIMITS.read_text())
    above = 0
    print(f"{'':34}" + "".join(f"{group:>18}" for group in GROUPS))
    for name in PATTERNS:
        cells = [(today[group][name], limits[group][name]) for group in GROUPS]
        above += sum(n > limit for n, limit in cells)
        print(f"{name:34}" + "".join(f"{f'{n} of {limit}' + ('!' if n > limit else ''):>18}" for n, limit in cells))
    if above:
        print(f"{above} counts are above their limit (!). List the matches with --list NUMBER and reword the new ones.")
    sys.exit(above > 0)


if __name__ == "__main__":
    main()
