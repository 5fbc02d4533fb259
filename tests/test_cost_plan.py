"""The cost plan of docs/scaling.md is what benchmarks/cost_plan.py computes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def planned(*words: str) -> list[str]:
    """The tables that the script prints."""
    command = [sys.executable, ROOT / "benchmarks/cost_plan.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split("\n\n")


def test_the_tables_of_the_docs_are_computed() -> None:
    text = (ROOT / "docs/scaling.md").read_text()
    for table in planned():
        assert table in text, "run `python benchmarks/cost_plan.py` and put its tables into docs/scaling.md"


def test_more_nodes_without_lanes_fetch_more() -> None:
    _, few, _ = planned("--nodes", "2")
    _, many, _ = planned("--nodes", "4")
    row = "Kinetics-400"
    cells = [next(line for line in table.splitlines() if row in line).split(" | ") for table in (few, many)]
    assert [float(cell[4].split()[0]) for cell in cells] == [273, 546]  # GB
    assert cells[0][5] == cells[1][5]
