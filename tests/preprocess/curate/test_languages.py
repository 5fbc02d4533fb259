"""Real sentences are told apart by language, in rules of curation and as signals that are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.curate import Signals, curate
from maskstream.preprocess.curate.languages import _load_identifier, measure_languages
from maskstream.shards.format.manifest import Manifest

from .test_prints import sounds_of, texts_of, tune
from .test_signals import run, signals_of

pytest.importorskip("py3langid")

ARTICLE_1 = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i "
    "sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}
"""The first article of the Universal Declaration of Human Rights."""
LANGUAGES = tuple(ARTICLE_1)


def test_each_sentence_is_in_its_language() -> None:
    for language, text in ARTICLE_1.items():
        shares = measure_languages(text, LANGUAGES)
        assert [*shares] == [f"language_{one}" for one in LANGUAGES]
        assert shares[f"language_{language}"] > 0.9
        assert sum(shares.values()) <= 1 + 1e-6
    for text in ("", "  \n", "1234 5678", "👍👍"):
        assert max(measure_languages(text, LANGUAGES).values()) < 0.1


def test_a_rule_names_languages(tmp_path: Path) -> None:
    split = texts_of(tmp_path / "split", dict(ARTICLE_1))
    found = curate(split, keep="language_en>0.5 or language_de>0.5", max_removed=1.0)
    keys = found.measures.manifest.keys(found.measures.index)
    assert {keys[one.place] for one in found.gone} == {*LANGUAGES} - {"en", "de"}
    assert found.failed == {"language_en > 0.5": 6, "language_de > 0.5": 6}


def test_they_are_written_as_signals_by_which_loaders_weigh(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for language, text in ARTICLE_1.items():
        (tmp_path / f"raw/{language}.txt").write_text(text)
    settings = ("tokenizer=train:bpe:300",)
    split = run("txt", tmp_path / "raw", tmp_path / "out", settings=settings, measure=Signals(languages=("de", "ja")))
    found = signals_of(split)
    assert {name.removesuffix(".txt") for name, of in found.items() if of["language_de"] > 0.5} == {"de"}
    assert {name.removesuffix(".txt") for name, of in found.items() if of["language_ja"] > 0.5} == {"ja"}
    assert Manifest.load(split).info["settings"]["signals"] == {"version": 4, "languages": ["de", "ja"]}
    assert curate(split, keep="language_de>0.5", dry_run=True).failed == {"language_de > 0.5": 6}


def test_what_cannot_be_told_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown language 'deu', did you mean 'eu'\?; use one of ace, af"):
        Signals(languages=("deu",))
    sounds = sounds_of(tmp_path / "sounds", {"a": tune(0)})
    with pytest.raises(ValueError, match=r"language_en is a text signal, but .* is measured by its audio"):
        curate(sounds, keep="language_en>0.5")
    done = CliRunner().invoke(app, ["shards", "txt", "--root", str(tmp_path), "--languages", "en"])
    assert "--languages adds text signals; pass --signals too" in str(done.exception or done.output)
    _load_identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ValueError, match=r"language signals need py3langid.*pip install 'maskstream\[languages\]'"):
        Signals(languages=("en",))
