"""The mask doctor: its moments, and its closed form against cases solved by hand and against masks that are drawn."""

import json
from itertools import product

import numpy as np
import pytest

from maskstream.cli import main
from maskstream.pages.doctor import (
    MIDDLE_FRAME,
    Moments,
    Visibility,
    alignment,
    draw_labelled_frames,
    find_common_side,
    make_shapes,
    measure_shapes,
    measure_supervised_alignment,
)
from maskstream.pipelines.masks import Context, Draw, MotionGuided, Random, TokenGrid, Tube
from maskstream.shards.config import with_set
from maskstream.train import train

from .reported import tiny


def data(n=300, d=12, classes=3, seed=0):
    """Correlated samples whose mean depends on the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    mix = rng.normal(size=(d, d)) * 0.7 ** np.arange(d)
    return rng.normal(size=(n, d)) @ mix.T + rng.normal(size=(classes, d))[labels] + 50.0, labels


def test_one_pass_over_batches_equals_numpy_over_all():
    x, labels = data()
    moments = Moments.of([(x[:1].reshape(1, 3, 4), labels[:1]), (x[1:120], labels[1:120]), (x[120:], labels[120:])])
    one_hot = np.eye(3)[labels]
    order = np.argsort(list(dict.fromkeys([labels[0], *sorted(set(labels))])))
    joint = np.cov(np.hstack([x, one_hot]).T, bias=True)
    np.testing.assert_allclose(moments.covariance, joint[:12, :12], atol=1e-10)
    np.testing.assert_allclose(moments.with_labels[:, order], joint[:12, 12:], atol=1e-10)
    assert moments.label_variance == pytest.approx(np.trace(joint[12:, 12:]))
    assert moments.count == 300


def test_without_a_mask_the_features_are_principal_components():
    x, labels = data()
    moments = Moments.of([(x, labels)])
    centred, one_hot = x - x.mean(0), np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    for k in (1, 3, 7):
        scores = centred @ axes[:k].T
        fit = scores @ np.linalg.lstsq(scores, one_hot, rcond=None)[0]
        expected = (fit**2).sum() / (one_hot**2).sum()
        assert alignment(moments, k)[-1] == pytest.approx(expected, rel=1e-4)


def pair_and_single(squared, label_of):
    """Two pixels that always agree and one that is independent, whose variance is `squared` times theirs; all four
    combinations of signs once, so that the moments are exact."""
    signs = np.array(list(product((-1.0, 1.0), repeat=2)))
    x = np.stack([signs[:, 0], signs[:, 0], np.sqrt(squared) * signs[:, 1]], axis=1)
    return Moments.of([(x, (signs[:, label_of] > 0).astype(np.int64))])


def test_hiding_pixels_prefers_what_others_tell_about_from_the_ratio_on_that_algebra_says():
    # One masked feature is worth 4 (1 - p) / (2 - p) for the pair and 3 (1 - p) for the single: they meet at p = 2/3.
    pair, single = pair_and_single(3.0, label_of=0), pair_and_single(3.0, label_of=1)
    for ratio, pair_wins in ((0.0, False), (0.6, False), (0.65, False), (0.68, True), (0.9, True)):
        assert alignment(pair, 1, Visibility.at(np.arange(3), ratio))[0] == pytest.approx(float(pair_wins), abs=1e-3)
        assert alignment(single, 1, Visibility.at(np.arange(3), ratio))[0] == pytest.approx(
            float(not pair_wins), abs=1e-3
        )
    hidden_together = Visibility.at(np.array([0, 0, 1]), 0.9)
    assert alignment(pair, 1, hidden_together)[0] == pytest.approx(0.0, abs=1e-3)


def test_independent_pixels_are_the_same_under_every_mask():
    signs = np.array(list(product((-1.0, 1.0), repeat=4))) * [4.0, 3.0, 2.0, 1.0]
    moments = Moments.of([(signs, (signs[:, 2] > 0).astype(int))])
    for ratio in (0.0, 0.3, 0.9):
        share = alignment(moments, 4, Visibility.at(np.arange(4), ratio))
        np.testing.assert_allclose(share, [0, 0, 1, 1], atol=1e-3)
    np.testing.assert_allclose(measure_supervised_alignment(moments, 4), [1, 1, 1, 1], atol=1e-3)


@pytest.mark.parametrize("exact", [False, True])
def test_the_closed_form_is_what_drawn_masks_give(exact):
    x, labels = data(n=400, d=16)
    centred = x - x.mean(0)
    ratio, shape = 0.75, make_shapes(4, ["2"], channels=1)["2 x 2"]
    rng, grid = np.random.default_rng(1), TokenGrid(axes=("h", "w"), shape=(2, 2), patch=(2, 2))
    mask, draws = Random(ratio=ratio), 20_000
    hidden = np.array([mask.hide(grid, Draw(rng=rng)) if exact else rng.random(4) < ratio for _ in range(draws)])
    seen = (~hidden[:, shape]).astype(float)
    whole = centred.T @ centred / len(x)
    second, cross = whole * (seen.T @ seen / draws), whole * seen.mean(0)
    expected = probe_of_reconstruction(centred, labels, second, cross, 3)
    got = alignment(Moments.of([(x, labels)]), 3, Visibility.at(shape, ratio, exact=exact))
    np.testing.assert_allclose(got, expected, atol=0.004)
    other = alignment(Moments.of([(x, labels)]), 3, Visibility.at(shape, ratio, exact=not exact))
    assert np.abs(other - expected).max() > 0.01


def test_a_drawn_mask_is_scored_by_how_often_it_shows_tokens():
    x, labels = data(n=400, d=16)
    moments, centred = Moments.of([(x, labels)]), x - x.mean(0)
    squares = make_shapes(4, ["2"], channels=1)["2 x 2"]
    pairs = np.full((4, 4), 1 / 6)  # two of four parts stay visible
    np.fill_diagonal(pairs, 0.5)
    equal = Visibility(parts=np.arange(4).reshape(2, 2), each=np.full(4, 0.5), pairs=pairs)
    np.testing.assert_allclose(
        alignment(moments, 3, equal.enlarged(4, 1)),
        alignment(moments, 3, Visibility.at(squares, 0.5, exact=True)),
        rtol=1e-4,
    )
    patterns = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], np.float64)  # one token always shows, one never
    uneven = Visibility(parts=np.arange(4).reshape(2, 2), each=patterns.mean(0), pairs=patterns.T @ patterns / 3)
    whole = centred.T @ centred / len(x)
    second = np.mean([whole * np.outer(one[squares], one[squares]) for one in patterns], axis=0)
    cross = np.mean([whole * one[squares] for one in patterns], axis=0)
    expected = probe_of_reconstruction(centred, labels, second + 1e-6 * np.eye(16), cross, 3)
    np.testing.assert_allclose(alignment(moments, 3, uneven.enlarged(4, 1)), expected, atol=2e-3)


def test_visibility_is_that_of_the_middle_time_step():
    grid = TokenGrid(shape=(3, 2, 2), patch=(2, 8, 8))
    found = Visibility.of(Context(mask=Tube(ratio=0.5)), grid, draws=200)
    assert found.parts.shape == (2, 2)
    np.testing.assert_allclose(found.each, 0.5, atol=0.1)
    np.testing.assert_allclose(found.pairs.diagonal(), found.each)
    np.testing.assert_allclose(found.pairs.sum(), 2 * 2, atol=1e-9)
    assert found.enlarged(4, 1).parts.tolist() == make_shapes(4, ["2"], channels=1)["2 x 2"].tolist()
    assert (find_common_side([(14, 14)]), find_common_side([(8, 8), (4, 4)]), find_common_side([(5, 5)])) == (
        14,
        16,
        15,
    )
    with pytest.raises(ValueError, match="tokens of 14 x 14, 8 x 8 have no common image side of up to 32 pixels"):
        find_common_side([(14, 14), (8, 8)])
    with pytest.raises(
        ValueError, match=r"follows flow, but only masks that do not depend on the sample can be scored"
    ):
        Visibility.of(MotionGuided(), grid)


def probe_of_reconstruction(centred, labels, second, cross, k):
    """Reduced-rank regression of the sample on its masked copy by numpy's SVD, then a least-squares probe."""
    values, vectors = np.linalg.eigh(second)
    root = vectors @ np.diag(np.maximum(values, 1e-12) ** -0.5) @ vectors.T
    _, _, right = np.linalg.svd(cross @ root)
    one_hot = np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    shares = []
    for n in range(1, k + 1):
        features = centred @ (root @ right[:n].T)
        fit = features @ np.linalg.lstsq(features, one_hot, rcond=None)[0]
        shares.append((fit**2).sum() / (one_hot**2).sum())
    return shares


def test_findings_are_sorted_and_never_above_the_supervised_optimum():
    x, labels = data(n=500, d=48)
    findings = measure_shapes(Moments.of([(x, labels)]), make_shapes(4), (0.5, 0.9), features=(1, 2, 8, 1000))
    assert findings[0].shape is None
    assert [f.mean_change for f in findings[1:]] == sorted((f.mean_change for f in findings[1:]), reverse=True)
    assert {(f.shape, f.ratio) for f in findings[1:]} == {
        (shape, ratio) for shape in ("1 x 1", "2 x 2", "rows", "columns") for ratio in (0.5, 0.9)
    }
    assert all(0 < a <= 1 + 1e-6 for f in findings for a in f.alignment.values())
    assert list(findings[0].alignment) == [1, 2, 8]


def test_shapes():
    squares, rows, columns = make_shapes(4, ["2", "rows", "columns"], channels=1).values()
    assert squares.reshape(4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert rows.reshape(4, 4)[:, 0].tolist() == columns.reshape(4, 4)[0].tolist() == [0, 1, 2, 3]
    assert make_shapes(2, ["1"])["1 x 1"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_what_cannot_be_examined_is_said():
    x, labels = data(n=10)
    for batches, words in (
        ([], "no labelled sample"),
        ([(x, np.zeros(10, int))], "at least two classes"),
        ([(x, labels), (x[:, :5], labels)], "got 12, then 5"),
        ([(x, labels[:4])], "one label each"),
        ([(x * np.nan, labels)], "not finite"),
        ([(np.zeros((2, 3073)), labels[:2])], "more than 3072"),
    ):
        with pytest.raises(ValueError, match=words):
            Moments.of(batches)
    moments = Moments.of([(x, labels)])
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1"):
        alignment(moments, 1, Visibility.at(np.arange(12), 1.0))
    with pytest.raises(ValueError, match="none of 12 parts stays visible"):
        alignment(moments, 1, Visibility.at(np.arange(12), 0.99, exact=True))
    with pytest.raises(ValueError, match="has 4 values, but the samples have 12"):
        alignment(moments, 1, Visibility.at(np.arange(4), 0.5))
    with pytest.raises(ValueError, match="all samples are equal"):
        alignment(Moments.of([(np.ones((4, 3)), np.arange(4))]), 1)
    for name in ("3", "4", "0", "stripes"):
        with pytest.raises(ValueError, match="must be one of 1, 2, rows, columns"):
            make_shapes(4, [name])
    with pytest.raises(ValueError, match=r"between 1 and 5"):
        measure_shapes(moments, {"1 x 1": np.arange(12)}, [0.5], features=(6,))


def test_real_digits_against_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    digits = load_digits()
    moments = Moments.of((digits.images[i : i + 200], digits.target[i : i + 200]) for i in range(0, 1797, 200))
    x, one_hot = digits.data, np.eye(10)[digits.target]
    score = {"multioutput": "variance_weighted"}
    for k in (2, 10):
        scores = PCA(k, svd_solver="full").fit_transform(x)
        expected = r2_score(one_hot, LinearRegression().fit(scores, one_hot).predict(scores), **score)
        assert alignment(moments, k)[-1] == pytest.approx(expected, abs=1e-4)
    best = r2_score(one_hot, LinearRegression().fit(x, one_hot).predict(x), **score)
    assert measure_supervised_alignment(moments, 9)[-1] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("samples", [None, 5, 100])
def test_pictures_out_of_shards(split, samples):
    batches = list(draw_labelled_frames(split, with_set(MIDDLE_FRAME, ["size=8"]), samples=samples))
    pictures, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert pictures.shape == (min(samples or 11, 11), 8, 8, 3)
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert len({p.tobytes() for p in pictures}) == len(labels)
    assert set(labels.tolist()) <= {0, 1, 2}


def test_the_command_on_shards(split, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["maskstream", "mask-score", str(split), "--size", "8", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 11
    assert len(result["findings"]) == 1 + 5 * 4
    assert list(result["findings"][1]["change"]) == ["1", "2", "4"]


@pytest.mark.slow
def test_masks_are_compared_in_columns(split, monkeypatch, capsys):
    def said(*words):
        monkeypatch.setattr("sys.argv", ["maskstream", "mask-score", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code, told.out, " ".join(told.err.split())

    code, out, _ = said(split, "--mask", "tube", "--mask", "frames")
    assert not code
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["no", "mask", "tube", "frames"]
    assert lines[2][:3] == ["hidden", "-", "89.8%"]
    assert lines[-2][0] == "mean"
    assert out.splitlines()[-1].startswith("few samples: 11 of 588 values each")
    assert "masks can only be compared on one split" in said(split, split, "--mask", "tube")[2]
    assert f"{split.parent} is not a run folder" in said(split, split.parent)[2]
    assert "--shapes and --size apply to shapes" in said(split, "--mask", "tube", "--size", "8")[2]


@pytest.mark.slow
def test_the_masks_of_runs_are_compared_below_what_differs(split, tmp_path, monkeypatch, capsys):
    for name, mask in {"one": Tube(ratio=0.75), "two": Tube(ratio=0.5)}.items():
        train(tiny(mask), split, tmp_path / name, steps=1, device="cpu", threads=1, progress=False)
    monkeypatch.setattr("sys.argv", ["maskstream", "mask-score", str(tmp_path / "one"), str(tmp_path / "two")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    _, head, differs, hidden, *_ = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["no", "mask", str(tmp_path / "one"), str(tmp_path / "two")]
    assert differs == ["data.mask.ratio", "0.75", "0.5"]
    assert hidden == ["hidden", "-", "75.0%", "50.0%"]
