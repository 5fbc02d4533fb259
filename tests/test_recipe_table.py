"""The table of docs/recipes.md: what benchmarks/recipes.py says of the figures of runs."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("recipes_benchmark", ROOT / "benchmarks/recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs(*values, lower=True, baselines=None):
    return [
        {
            "seed": seed,
            "steps": 10,
            "seconds": 2.0 + seed,
            "figure": "error",
            "held_out": value,
            "lower_is_better": lower,
            "baselines": baselines or {"mean": 0.9, "interpolation": 0.5},
        }
        for seed, value in enumerate(values)
    ]


def test_a_row_says_by_how_much_the_best_baseline_is_beaten_or_not(recipes):
    row = recipes.merged("x-tiny", "sample", runs(0.45, 0.4, 0.41))
    assert (row["held_out"], row["seconds"], row["steps"]) == (0.41, 3.0, 10)
    assert [one["seed"] for one in row["seeds"]] == [0, 1, 2]
    assert "0.41 (0.4, 0.05) | interpolation: 0.5 | 18% better |" in recipes.in_words(row)
    mixed = recipes.in_words(recipes.merged("x-tiny", "sample", runs(0.45, 0.52, 0.41)))
    assert "10% better, but not with every seed" in mixed
    worse = recipes.in_words(recipes.merged("x-tiny", "sample", runs(0.55)))
    assert "**10% worse**: not known why" in worse
    sound = recipes.merged("y-tiny", "sample-audio", runs(7.5, lower=False, baselines={"the noisy sound": 5.0}))
    assert "the noisy sound: 5 | 2.5 better |" in recipes.in_words(sound)


def test_the_table_is_written_between_its_marks_and_the_list_beside_it(recipes, tmp_path):
    docs = tmp_path / "recipes.md"
    docs.write_text(f"# Head\n{recipes.BEGIN}\nold\n| `x-tiny` | old |\n| `a-tiny` | kept |\n{recipes.END}\n\nfoot\n")
    rows = [recipes.merged("x-tiny", "sample", runs(0.45))]
    shown = tmp_path / "reached.json"
    shown.write_text('{"a-tiny": {}}')
    for _ in range(2):
        recipes.write(rows, tmp_path, docs, shown)
    text = docs.read_text()
    assert text.startswith("# Head\n<!-- recipes")
    assert text.endswith("end of recipes -->\n\nfoot\n")
    assert "old" not in text
    head, rule, other, own = [line for line in text.splitlines() if line.startswith("|")]
    assert other == "| `a-tiny` | kept |"
    assert own.startswith("| `x-tiny` |")
    assert {line.count(" | ") for line in (head, rule, own)} == {7}
    assert json.loads((tmp_path / "recipes.json").read_text()) == rows
    reached = json.loads(shown.read_text())
    assert list(reached) == ["a-tiny", "x-tiny"]
    assert reached["x-tiny"] == {
        **{"data": "sample", "figure": "error", "held_out": 0.45},
        **{"baseline": "interpolation", "of_baseline": 0.5},
    }


def test_scores_and_baselines_are_named_as_in_the_field(recipes):
    score = recipes.Score.share("right answers", 0.75, "questions", 4, {"that to the same words": 0.5})
    row = recipes.figure_of(score)
    assert (row["figure"], row["held_out"]) == ("answer accuracy, %", 75)
    assert row["baselines"] == {"the most frequent answer to the same words": 50}


def test_every_tiny_recipe_with_a_sample_set_is_in_the_list(recipes):
    assert {"mgmae-tiny", "mae-tiny", "audiomae-tiny", "meshmask-tiny-next"} <= set(recipes.names())


def test_a_split_has_as_many_ids_as_its_recipe_reads(recipes, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(recipes, "command", lambda *words: made.append(words))
    recipe = recipes.named_recipe("roar-lstm-tiny")
    assert recipes.made_shards(recipe, tmp_path) == tmp_path / "shards/vader-4096"
    assert made[0][-2:] == ("--set", f"tokenizer=train:wordpiece:{recipe.model.vocabulary}")
    recipes.made_shards(recipes.named_recipe("bert-tiny"), tmp_path)
    assert "--set" not in made[1]


def test_a_recipe_without_a_figure_does_not_stop_the_others(recipes, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs.md").write_text(f"{recipes.BEGIN}\n{recipes.END}\n")
    (tmp_path / "shards/moving-fashion-mnist/val").mkdir(parents=True)

    def scored(name, seed, shards, run):
        if name == "videomae-tiny":
            raise recipes.NoFigureError("no figure")
        return runs(0.4)[0] | {"seed": seed}

    monkeypatch.setattr(recipes, "scored", scored)
    words = ["recipes.py", "videomae-tiny", "mgmae-tiny", "--data", tmp_path, "--out", tmp_path / "runs"]
    monkeypatch.setattr("sys.argv", [*map(str, words), "--docs", str(tmp_path / "docs.md"), "--seeds", "2"])
    monkeypatch.setattr("sys.argv", [*sys.argv, "--reached", str(tmp_path / "reached.json")])
    (tmp_path / "reached.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        recipes.main()
    assert ended.value.code == 1
    assert "videomae-tiny: no figure" in capsys.readouterr().err
    (row,) = json.loads((tmp_path / "runs/recipes.json").read_text())
    assert (row["recipe"], len(row["seeds"])) == ("mgmae-tiny", 2)


def test_the_docs_have_the_marks_of_the_table(recipes):
    text = (ROOT / "docs/recipes.md").read_text()
    assert text.index(recipes.BEGIN) < text.index(recipes.END)


def test_what_maskstream_recipes_says_is_what_the_table_says(recipes):
    rows, text = {}, (ROOT / "docs/recipes.md").read_text()
    for line in text.partition(recipes.BEGIN)[2].partition(recipes.END)[0].splitlines():
        if line.startswith("| `"):
            name, data, _, _, figure, own, best, _ = (cell.strip(" `") for cell in line[1:-1].split(" | "))
            baseline, _, value = best.rpartition(": ")
            held_out = float(own.split(" ")[0])
            rows[name] = {
                **{"data": data, "figure": figure, "held_out": held_out},
                **{"baseline": baseline, "of_baseline": float(value)},
            }
    assert json.loads((ROOT / "train/reached.json").read_text()) == rows
    assert len(rows) > 30
