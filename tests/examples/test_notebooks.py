"""The notebooks run from a fresh kernel to their end, and show what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient

from .running import EXAMPLES

LIMIT_S = 300


def executed(name: str, folder: Path) -> list[Any]:
    """What the cells of a notebook put out, in order."""
    notebook = jupytext.read(EXAMPLES / "notebooks" / f"{name}.py")
    NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def printed(outputs: list[Any]) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


@pytest.mark.slow
def test_the_mask_designer_draws_every_mask(tmp_path: Path) -> None:
    outputs = executed("mask_designer", tmp_path)
    shown = [output["data"] for output in outputs if output["output_type"] == "execute_result"]
    assert sum("image/png" in data for data in shown) == 5
    assert any("`masks.Tube(ratio=0.9)`" in data.get("text/markdown", "") for data in shown)
    said = printed(outputs)
    assert re.search(r"Tube.*1408 of 1568 tokens hidden, \[20, 20, 20, 20, 20, 20, 20, 20\]", said), said
    assert re.search(r"Curtain.*1232 of 1568 tokens hidden", said), said


@pytest.mark.slow
def test_a_model_of_hugging_face_learns_from_the_loader(tmp_path: Path) -> None:
    said = printed(executed("hugging_face", tmp_path))
    assert "pixel values (8, 8, 3, 64, 64) torch.float32" in said
    first, last = re.search(r"loss ([\d.]+) in the first five steps, ([\d.]+) in the last", said).groups()
    assert float(last) < float(first)
    assert "the same batch again: True" in said
