"""Hooks of a user's own."""

from maskstream.train import Trainer, read_metrics

from ...cli.test_own_parts import FILES


def test_the_hook_of_the_page_stops_a_run(recipe, synthetic_loader, tmp_path):
    names = {}
    exec(FILES["hooks.py"], names)
    hook = names["Patience"](steps=2)
    hook.best = 0.0  # no loss is below it
    done = Trainer(recipe, synthetic_loader(), tmp_path, steps=9, progress=False, hooks=[hook]).run()
    assert (done.step, done.finished) == (2, False)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row.val for row in rows] == [{"steps without progress": 1}, {"steps without progress": 2}]
    assert "hooks" in rows[1].seconds
    assert (tmp_path / "checkpoints/step-00000002").is_dir()
