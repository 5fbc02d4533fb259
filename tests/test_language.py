"""The linter of language finds each pattern, skips code, and fails above a limit."""

import json
import sys

import pytest

from . import check_language

EXAMPLES = {
    "1": ("What NVDEC cannot decode is detected", "Which clips does it decode? What does it skip?"),
    "2": ("The log says each", "The log lists each"),
    "3": ("pixels are those of rgb", "pixels are identical to rgb"),
    "4": ("line 3 is no JSON", "line 3 is no longer JSON"),
    "5": ("this picture", "the dataset card"),
    "6": ("Of the clip.", "Length of the clip."),
    "7": ("a folder is wanted", "a folder is required"),
    "8": ("the same in 0.4 of the time", "2.5x faster"),
    "9": ("our time, theirs 3 ms", "our time (authors' code: 3 ms)"),
    "10": ("pixels it began with.", "except with DALI"),
    "11": ("written anew", "written again"),
}


@pytest.mark.parametrize(("name", "pattern"), check_language.COMPILED.items())
def test_each_pattern_is_found_and_its_remedy_is_not(name, pattern):
    bad, good = EXAMPLES[name.split(" ")[0]]
    assert pattern.search(bad)
    assert not pattern.search(good)


def test_code_of_pages_and_short_strings_are_skipped():
    page = "a\n```\nwhat it says\n```\n`what` <img\nalt='what'> [x](what.md)\n"
    page += "<!-- t, written -->\nwhat\n<!-- end of t -->\nb\n"
    prose = check_language.prose_of(page)
    assert "what" not in prose
    assert prose.splitlines().index("b") == page.splitlines().index("b")
    source = "# a comment\nx = 'only three words'\ny = f'four words and {x}'\n"
    assert list(check_language.strings_of(source)) == [(1, "a comment"), (3, "four words and {}")]


def test_a_count_above_its_limit_fails_and_limits_never_rise(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_language, "LIMITS", tmp_path / "limits.json")
    found = {"pages": ["says"], "changelog": [], "code": ["that of", "says"]}
    monkeypatch.setattr(check_language, "texts", lambda group: [("f", 1, text) for text in found[group]])

    def exit_code(*words):
        monkeypatch.setattr(sys, "argv", ["check_language.py", *words])
        with pytest.raises(SystemExit) as ended:
            check_language.main()
        return ended.value.code

    assert exit_code("--lower") == 0
    found["pages"].append("it says")
    assert exit_code() == 1
    assert "2 of 1!" in capsys.readouterr().out
    assert exit_code("--lower") == 1
    assert json.loads(check_language.LIMITS.read_text())["pages"]["2 things that say, tell, know"] == 1


def test_limits_name_every_pattern():
    limits = json.loads(check_language.LIMITS.read_text())
    assert [list(limits[group]) for group in check_language.GROUPS] == [list(check_language.PATTERNS)] * 3
