"""Configs: to JSON and back, changed by assignments, compared field by field."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskstream.shards.config import NOT_IDENTITY, Config, compare, differences, with_set
from maskstream.shards.named import named

ShapeT = TypeVar("ShapeT")


class Rule(Config, ABC):
    __slots__ = ()

    @abstractmethod
    def value(self) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Flat(Rule):
    level: float = 0.5

    def value(self) -> float:
        return self.level


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope(Rule):
    start: float
    end: float = 1.0
    shape: Literal["line", "curve"] = "line"

    def validate(self) -> None:
        if self.start > self.end:
            raise ValueError(f"start {self.start} is above end {self.end}")

    def value(self) -> float:
        return self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern(Config):
    ratio: float | Rule = 0.75
    blocks: tuple[int, ...] = ()
    scale: tuple[float, float] | None = None
    parts: tuple[Rule | None, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Aged(Config):
    version: ClassVar[int] = 2
    size: int = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Data(Config, Generic[ShapeT]):
    pattern: Pattern | None = None
    frames: int = 16
    weights: Mapping[str, float] = field(default_factory=dict)
    backend: str = field(default="auto", metadata=NOT_IDENTITY)
    aged: Aged = field(default_factory=Aged)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(Config):
    depth: int = 12
    frames: int = 4
    bias: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Config):
    name: str = field(metadata=NOT_IDENTITY)
    data: Data[int]
    model: Model = field(default_factory=Model)


HERE = __name__
RUN = Run(name="mine", data=Data(pattern=Pattern(ratio=Slope(start=0.25), blocks=(2, 3))))

numbers = st.floats(allow_nan=False, allow_infinity=False)
rules = st.builds(Flat, level=numbers) | st.floats(0, 1).map(lambda s: Slope(start=s, shape="curve"))
patterns = st.builds(
    Pattern,
    ratio=numbers | rules,
    blocks=st.lists(st.integers()).map(tuple),
    scale=st.none() | st.tuples(numbers, numbers),
    parts=st.lists(st.none() | rules, max_size=3).map(tuple),
)
runs = st.builds(
    Run,
    name=st.text(),
    data=st.builds(
        Data,
        pattern=st.none() | patterns,
        frames=st.integers(),
        weights=st.dictionaries(st.text(), numbers),
        backend=st.text(),
    ),
    model=st.builds(Model, depth=st.integers(), bias=st.booleans()),
)


@given(runs, st.booleans())
def test_a_config_comes_back_from_json(run: Run, defaults: bool) -> None:
    again = Run.from_dict(json.loads(json.dumps(run.to_dict(defaults=defaults))))
    assert again == run
    assert repr(again) == repr(run)


@given(runs, runs)
def test_two_runs_differ_where_their_identity_does(one: Run, two: Run) -> None:
    dicts = [json.loads(json.dumps(run.to_dict(identity=True))) for run in (one, two)]
    assert not differences(dicts[0], dicts[0])
    same = replace(one, name="", data=replace(one.data, backend="")) == replace(
        two, name="", data=replace(two.data, backend="")
    )
    assert bool(differences(*dicts)) is not same


def test_defaults_are_left_out_unless_asked() -> None:
    assert Pattern(ratio=0.8).to_dict() == {"kind": f"{HERE}:Pattern", "ratio": 0.8}
    assert Pattern().to_dict(defaults=True) == {
        "kind": f"{HERE}:Pattern",
        "ratio": 0.75,
        "blocks": [],
        "scale": None,
        "parts": [],
    }
    assert Aged().to_dict() == {"kind": f"{HERE}:Aged", "version": 2}
    assert "backend" not in Data(backend="cpu").to_dict(identity=True, defaults=True)
    assert Data(backend="cpu").to_dict()["backend"] == "cpu"


def test_integers_become_floats_only_where_no_integer_is_wanted() -> None:
    made = Pattern.from_dict({"kind": f"{HERE}:Pattern", "ratio": 1, "blocks": [1], "scale": [0, 1]})
    assert repr(made) == "Pattern(ratio=1.0, blocks=(1,), scale=(0.0, 1.0), parts=())"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"kind": f"{HERE}:Flat", "levle": 1}, r"no field 'levle', did you mean 'level'\?; its fields are level"),
        ({"kind": f"{HERE}:Flat", "level": "1"}, "level: expected a value of type float, got '1'"),
        ({"kind": f"{HERE}:Flat", "level": True}, "level: expected a value of type float, got True"),
        ({"kind": f"{HERE}:Slope"}, "Slope needs start"),
        ({"kind": f"{HERE}:Slope", "start": 0.1, "shape": "curv"}, "shape: expected 'line', 'curve', got 'curv'"),
        ({"kind": f"{HERE}:Rule"}, "is abstract"),
        ({"level": 0.1}, "has no kind"),
        ({"kind": f"{HERE}:Model"}, "Model is not a kind of Rule"),
        ({"kind": "Flat"}, r"'Flat' is not a kind of Rule.*expected .*:Flat, .*:Slope"),
        ({"kind": "no.such.module:Flat"}, "cannot be imported"),
        ({"kind": f"{HERE}:Flatt"}, "has no 'Flatt'"),
    ],
)
def test_a_wrong_dict_is_told_where_and_why(data: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rule.from_dict(data)


def test_a_wrong_dict_deep_down_is_told_where() -> None:
    whole = RUN.to_dict()
    whole["data"]["pattern"]["ratio"]["strat"] = 0.5
    with pytest.raises(ValueError, match=r"^data\.pattern\.ratio: .*:Slope has no field 'strat', did you mean 'start'"):
        Run.from_dict(whole)


def test_a_dict_of_another_version_is_not_rebuilt() -> None:
    with pytest.raises(ValueError, match=r"saved by version 1 of .*:Aged, but this is version 2"):
        Aged.from_dict({"kind": f"{HERE}:Aged"})


def test_assignments_change_the_whole_at_once() -> None:
    changed = with_set(RUN, ["model.depth=6", "ratio.end=3", "ratio.start=2", "blocks=[5]", "bias=false", "name=you"])
    pattern = Pattern(ratio=Slope(start=2, end=3), blocks=(5,))
    assert changed == Run(name="you", data=Data(pattern=pattern), model=Model(depth=6, bias=False))


def test_another_kind_comes_with_its_defaults() -> None:
    assert with_set(RUN, [f"ratio.kind={HERE}:Flat"]) == replace(
        RUN, data=Data(pattern=Pattern(ratio=Flat(), blocks=(2, 3)))
    )
    again = with_set(RUN, [f"ratio.kind={HERE}:Flat", "level=0.125"])
    assert again.data.pattern is not None
    assert again.data.pattern.ratio == Flat(level=0.125)
    none = with_set(RUN, ["data.pattern=null"])
    assert none.data.pattern is None
    assert with_set(none, [f"pattern.kind={HERE}:Pattern", "pattern.ratio=0.5"]).data.pattern == Pattern(ratio=0.5)
    parts = with_set(RUN, [f'parts=[null, {{"kind": "{HERE}:Slope", "start": 0.5}}]'])
    second = with_set(parts, ["parts.1.start=0.75"]).data.pattern
    assert second is not None
    assert second.parts == (None, Slope(start=0.75))


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("model.dept=6", r"no field 'model\.dept' to set, did you mean 'model\.depth'"),
        ("frames=6", r"is ambiguous: data\.frames, model\.frames"),
        ("model.depth", "write path=value"),
        ("model.depth=six", "depth: expected a value of type int, got 'six'"),
        ("ratio.kind=Flatt", r"^data.pattern.ratio: 'Flatt' is not a kind of Rule; expected \S+:Flat, \S+:Slope, or"),
        ("ratio.start=5", r"start 5\.0 is above end 1\.0"),
    ],
)
def test_a_wrong_assignment_is_told_with_the_nearest(assignment: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        with_set(RUN, [assignment])


def test_differences_name_the_field_and_both_values() -> None:
    other = with_set(RUN, ["ratio.start=0.5", "model.depth=6", "name=other", "backend=cpu", "blocks=[2]"])
    assert differences(RUN.to_dict(identity=True), other.to_dict(identity=True)) == [
        "data.pattern.ratio.start: saved 0.25, here 0.5",
        "data.pattern.blocks: saved [2, 3], here [2]",
        "model.depth: saved 12, here 6",
    ]
    kinds = differences(RUN.to_dict(), with_set(RUN, [f"ratio.kind={HERE}:Flat"]).to_dict())
    assert kinds == [f"data.pattern.ratio: saved {HERE}:Slope(start=0.25), here {HERE}:Flat()"]
    assert differences({"dataset": "a", "data": Data().to_dict()}, {"data": Data().to_dict()}) == [
        "dataset: saved a, here nothing"
    ]


def test_several_are_compared_where_any_differs() -> None:
    three = (RUN, with_set(RUN, ["ratio.start=0.5"]), with_set(RUN, [f"ratio.kind={HERE}:Flat", "model.depth=6"]))
    assert compare([one.to_dict(identity=True) for one in three]) == {
        "data.pattern.ratio": (f"{HERE}:Slope(start=0.25)", f"{HERE}:Slope(start=0.5)", f"{HERE}:Flat()"),
        "model.depth": ("12", "12", "6"),
    }
    assert compare([RUN.to_dict(), RUN.to_dict(defaults=True)]) == {}
    assert compare([{"seed": 1}, {}, {"seed": 2}]) == {"seed": ("1", "nothing", "2")}


def test_a_new_field_with_a_default_is_no_difference_and_a_lower_version_is() -> None:
    saved, here = Model().to_dict(defaults=True), Model().to_dict(defaults=True)
    del saved["bias"]
    assert differences(saved, here) == []
    assert differences(saved, {**here, "bias": False}) == ["bias: saved True, here False"]
    old = Data().to_dict(defaults=True)
    old["aged"] = {"kind": f"{HERE}:Aged", "size": 8}
    assert differences(old, Data().to_dict()) == [
        f"aged: saved by version 1 of {HERE}:Aged, here version 2",
    ]


def test_settings_that_are_no_fields_are_refused() -> None:
    class Loose(Rule):
        def __init__(self) -> None:
            self.level = 1.0

        def value(self) -> float:
            return self.level

    with pytest.raises(ValueError, match=r"has the attributes level, which are not fields; make it a @dataclass"):
        Loose().to_dict()


def test_a_kind_outside_the_package_is_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from dataclasses import dataclass\n"
        "from maskstream.shards.config import Config\n"
        "@dataclass(frozen=True, kw_only=True, slots=True)\n"
        "class Own(Config):\n    size: int = 1\n"
    )
    (tmp_path / "brought_in_by_test_config.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    made = Config.from_dict({"kind": "brought_in_by_test_config:Own", "size": 3})
    assert made.to_dict() == {"kind": "brought_in_by_test_config:Own", "size": 3}
    assert type(made) is sys.modules["brought_in_by_test_config"].Own


def test_a_name_is_of_the_table_or_imported() -> None:
    table = {"line": 1, "curve": 2}
    assert named("curve", table, "shape") == 2
    assert named(f"{HERE}:RUN", {"": RUN}, "run") is RUN
    with pytest.raises(ValueError, match=r"'curv' is not a known shape, did you mean 'curve'\?; expected curve, line"):
        named("curv", table, "shape")
    with pytest.raises(ValueError, match=r"the shape 'no\.such:thing' cannot be imported"):
        named("no.such:thing", table, "shape")


def test_data_name_no_code_at_any_depth(monkeypatch):
    monkeypatch.setitem(sys.modules, "far", None)  # an import of it fails
    deep = {"kind": Pattern.kind(), "parts": [{"kind": f"{HERE}:Flat"}, {"kind": "far:Away"}]}
    with pytest.raises(
        ValueError, match="data refers to the class 'far:Away'; only commands and configs that you write"
    ):
        Pattern.from_data({"parts": deep["parts"][1:]})
    with pytest.raises(ValueError, match="data refers to the class"):
        Pattern.from_data(deep)
    with pytest.raises(ValueError, match="cannot be imported"):
        Pattern.from_dict(deep)
    assert Pattern.from_data({"blocks": [1, 2]}) == Pattern(blocks=(1, 2))
