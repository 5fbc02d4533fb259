"""Rules: comparisons of signals that decide which samples of a split are kept, or are written at all. They are parsed,
never executed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from sys import float_info
from typing import Any

import numpy as np

from maskstream.shards.arrays import Bools, Float64s
from maskstream.shards.errors import DatasetError
from maskstream.shards.members.image import IMAGE
from maskstream.shards.members.member import Member
from maskstream.shards.members.video import VIDEO
from maskstream.shards.named import nearest

from .measures import MOST_FRAMES, SIGNALS, keyframes, list_known_signals, looks_of, picture

SHARE_NAME = re.compile(r"p(\d{1,2}(?:_\d+)?)")
_COMPARE: Mapping[type, Callable[[Any, Any], Bools]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
RULES = "motion>0.02 and (sharpness>=p10 or seconds<2)"


class Rule:
    """A condition on signals, such as RULES.

    Comparisons with numbers, or with percentiles of the same signal (p10 for the tenth), are joined by and, or, not and
    parentheses.

    Args:
        text: The condition.
        names: Signals that it may use.

    Raises:
        ValueError: The text is not such a condition.
    """

    def __init__(self, text: str, names: Sequence[str] = tuple(SIGNALS)) -> None:
        self.text, self.names = text, names
        try:
            self._tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error(f"cannot be parsed ({error.args[0] if error.args else error})") from None
        self._check(self._tree)

    def apply(self, signals: Mapping[str, Float64s]) -> tuple[Bools, dict[str, int]]:
        """Return the samples that meet the rule, and the number of samples that fail each of its comparisons.

        Args:
            signals: float64 (N,) by name; a comparison with NaN fails.

        Returns:
            bool (N,), and the number of failing samples by the text of the comparison.
        """
        failed = {
            ast.unparse(one): int((~self._compared(one, signals)).sum())
            for one in ast.walk(self._tree)
            if isinstance(one, ast.Compare)
        }
        return self._is_met(self._tree, signals), failed

    def list_thresholds(self, signals: Mapping[str, Float64s]) -> list[tuple[str, float]]:
        """Return each compared signal with the number that it is compared with, in the order of the text."""
        found = []
        for one in ast.walk(self._tree):
            if isinstance(one, ast.Compare):
                sides = [one.left, *one.comparators]
                for a, b in pairwise(sides):
                    name, other = (a, b) if self._signal(a) else (b, a)
                    found.append((self._signal(name), float(np.max(self._value(other, self._signal(name), signals)))))
        return found

    def _is_met(self, node: ast.expr, signals: Mapping[str, Float64s]) -> Bools:
        if isinstance(node, ast.BoolOp):
            parts = [self._is_met(one, signals) for one in node.values]
            return np.asarray(np.all(parts, 0) if isinstance(node.op, ast.And) else np.any(parts, 0))
        if isinstance(node, ast.UnaryOp):
            return ~self._is_met(node.operand, signals)
        assert isinstance(node, ast.Compare)
        return self._compared(node, signals)

    def _compared(self, node: ast.Compare, signals: Mapping[str, Float64s]) -> Bools:
        sides = [node.left, *node.comparators]
        met = np.ones(len(next(iter(signals.values()))), bool)
        for a, op, b in zip(sides, node.ops, sides[1:], strict=False):
            of = self._signal(a) or self._signal(b)
            met &= _COMPARE[type(op)](self._value(a, of, signals), self._value(b, of, signals))
        return met

    def _value(self, node: ast.expr, of: str, signals: Mapping[str, Float64s]) -> Float64s | float:
        if isinstance(node, ast.Name):
            share = SHARE_NAME.fullmatch(node.id)
            if share is None:
                return signals[node.id]
            known = signals[of][np.isfinite(signals[of])]
            return float(np.percentile(known, float(share[1].replace("_", ".")))) if len(known) else np.nan
        return float(ast.literal_eval(node))

    def _check(self, node: ast.expr) -> None:
        if isinstance(node, ast.BoolOp):
            for one in node.values:
                self._check(one)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._check(node.operand)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(type(op) not in _COMPARE for op in node.ops):
                raise self._error("uses an operator other than <, <=, > and >=")
            for one in sides:
                self._check_side(one)
            if any(bool(self._signal(a)) == bool(self._signal(b)) for a, b in pairwise(sides)):
                raise self._error("may only compare a signal with a number or a percentile such as p10")
        else:
            raise self._error(f"has {ast.unparse(node)!r}, which is not a comparison")

    def _check_side(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            if node.id not in self.names and not SHARE_NAME.fullmatch(node.id):
                raise self._error(f"has {node.id!r}, which is not a signal{nearest(node.id, [*self.names])}")
            return
        number = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
        value = number.value if isinstance(number, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(f"has {ast.unparse(node)!r}, which is neither a signal nor a number")
        if abs(value) > float_info.max:
            raise self._error(f"has {ast.unparse(node)[:80]!r}, which is too large for a float64")

    def _error(self, what: str) -> ValueError:
        return ValueError(f"the rule {self.text!r} {what}; write one like {RULES!r} with {', '.join(self.names)}")

    def _signal(self, node: ast.expr) -> str:
        """Return the signal that a node names, or ""."""
        return node.id if isinstance(node, ast.Name) and node.id in self.names else ""


@dataclass(frozen=True, slots=True)
class KeepRule:
    """A rule that decides which samples are written.

    It compares signals only with numbers, because percentiles are unknown until all samples are written.

    Args:
        text: The condition, such as "sharpness>20 and motion>0.02".

    Raises:
        ValueError: The text is not such a rule.
    """

    text: str

    def __post_init__(self) -> None:
        Rule(self.text)
        if shares := [name for name in self._names() if SHARE_NAME.fullmatch(name)]:
            raise ValueError(
                f"keep={self.text!r} uses {shares[0]}, a percentile, which is not known until all samples are "
                "written. Use a number, or run `maskstream curate --keep` afterwards"
            )

    def _names(self) -> list[str]:
        found = (one.id for one in ast.walk(ast.parse(self.text, mode="eval")) if isinstance(one, ast.Name))
        return list(dict.fromkeys(found))

    def explain_unmet(self, members: Mapping[str, Member]) -> str:
        """Return the values of the signals and the rule if a sample does not meet it, else "".

        Args:
            members: Members of the sample by name.

        Raises:
            DatasetError: The sample has neither an image nor a video.
        """
        signals = measured(members)
        met, _ = Rule(self.text).apply({name: np.array([value]) for name, value in signals.items()})
        if met[0]:
            return ""
        return ", ".join(f"{name}={signals[name]:.6g}" for name in self._names()) + f", not {self.text}"


def measured(members: Mapping[str, Member]) -> dict[str, float]:
    """Return the signals of the image of a sample, or of its first video, as `measure` computes them from shards.

    Args:
        members: Members of the sample by name.

    Raises:
        DatasetError: The sample has neither an image nor a video.
    """
    own = next((one for kind in (IMAGE, VIDEO) for one in members.values() if one.kind == kind.name), None)
    if own is None:
        raise DatasetError("--keep measures images and video clips, but the samples have neither; remove --keep")
    is_clip = own.kind == VIDEO.name
    frames = list(islice(keyframes(own.data), MOST_FRAMES)) if is_clip else [picture(own.data)]
    seconds = int(own.facts["n_frames"]) / float(own.facts["fps"]) if is_clip else 0.0
    known = list_known_signals(int(own.facts["width"]), int(own.facts["height"]), len(own.data), seconds)
    return {**known, **looks_of(frames)}
