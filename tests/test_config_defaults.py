"""A changed default of a config would change what old runs mean; the class's version must grow with it."""

from collections import Counter

from .config_defaults import changed_defaults, defaults_of, package_configs, read_golden

AGAIN = "run `python tests/config_defaults.py` and commit the file"


def test_no_default_changes_without_its_version() -> None:
    here = {cls.kind(): defaults_of(cls) for cls in package_configs()}
    golden = read_golden()
    assert not changed_defaults(golden, here), "let the version of the class grow by one, so that old runs are refused"
    assert golden == here, f"configs or their fields came or went; {AGAIN}"


def test_a_changed_default_is_seen_and_a_grown_version_excuses_it() -> None:
    golden = {"Tube": {"version": 1, "ratio": 0.9}}
    assert changed_defaults(golden, {"Tube": {"version": 1, "ratio": 0.8, "new": 1}}) == [
        "Tube.ratio: 0.9 in config_defaults.json, 0.8 in the code"
    ]
    assert not changed_defaults(golden, {"Tube": {"version": 2, "ratio": 0.8}})
    assert changed_defaults(golden, {"Tube": {"version": 1, "ratio": "required"}})
    nested = {"Recipe": {"version": 1, "optimiser": {"eps": 1}}}
    assert not changed_defaults(nested, {"Recipe": {"version": 1, "optimiser": {"eps": 1, "new": None}}})
    assert changed_defaults(nested, {"Recipe": {"version": 1, "optimiser": {"eps": 2, "new": None}}})


def test_every_kind_has_one_class() -> None:
    assert [kind for kind, n in Counter(cls.kind() for cls in package_configs()).items() if n > 1] == []
