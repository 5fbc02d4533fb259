"""The look at pages finds what it is to find: a page with one planted fault of each kind."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from .look import PLANT, Browser, plays, url_of

pytestmark = pytest.mark.services

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A page</title><style>
:root { color-scheme: light dark; --paper: #fff; --ink: #222; }
@media (prefers-color-scheme: dark) { :root { --paper: #111; --ink: #eee; } }
body { background: var(--paper); color: var(--ink); }
</style></head><body><main><h1>A page</h1>
<article class="clip"><p>LABEL</p><div class="screen"><img alt="" src="data:,"></div>
<p><button type="button">Play</button><input type="range" aria-label="Frame" max="9" value="0">
<output></output></p></article>
<script>
const [button, slider, output] = ["button", "input", "output"].map((name) => document.querySelector(name));
let timer = 0;
const show = () => output.textContent = `frame ${+slider.value + 1} of 10`;
slider.addEventListener("input", show);
button.addEventListener("click", () => {
  button.textContent = timer ? "Play" : "Pause";
  timer = timer ? clearInterval(timer) : setInterval(() => { slider.value = (+slider.value + 1) % 10; show(); }, 30);
});
</script>
PLANT</main></body></html>
"""


def page_with(folder: Path, *, plant: str = "", label: str = html.escape(PLANT), without: str = "") -> str:
    """The URL of a page that is as it should be but for what is planted and for what is taken out."""
    path = folder / "page.html"
    text = PAGE.replace(without, "", 1) if without else PAGE
    path.write_text(text.replace("PLANT", plant).replace("LABEL", label))
    return url_of(path)


def test_a_page_as_it_should_be_has_no_fault(browser: Browser, tmp_path: Path) -> None:
    url = page_with(tmp_path)
    assert browser.faults(url, [PLANT]) == []
    with browser.opened(url) as page:
        plays(page)


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        ("<script>console.error('wrong')</script>", "console: wrong"),
        ("<script>nothing.there()</script>", "exception: nothing is not defined"),
        ("<script>alert('hello')</script>", "dialog: hello"),
        ('<p style="width: 500px">wide</p>', "overflow at 390 px: "),
        ('<p style="margin-left: 1300px">wide</p>', "overflow at 1280 px: "),
        ('<img alt="a" src="http://192.0.2.1/a.png">', "request outside: http://192.0.2.1/a.png"),
        ('<link rel="stylesheet" href="other.css">', "request outside: file:"),
        ('<p style="color: #999; background: #fff">pale</p>', "color-contrast at 1 places: "),
        ('<style>@media (prefers-color-scheme: dark) { p { color: #444 } }</style>', "color-contrast at "),
        ('<img src="data:,">', "image-alt at 1 places: "),
        ("<style>button:focus { outline: none }</style>", "focus is not seen: <button"),
        ('<a href="#" tabindex="-1">unreached</a><a href="#">end</a>', "not reached with the keyboard: <a"),
        ('<input aria-label="i" onkeydown="event.preventDefault()">', "the keyboard cannot leave: <input"),
    ],
)  # fmt: skip
def test_each_planted_fault_is_found(browser: Browser, tmp_path: Path, plant: str, fault: str) -> None:
    found = browser.faults(page_with(tmp_path, plant=plant), [PLANT])
    assert any(one.startswith(fault) for one in found), found


def test_a_label_that_is_not_escaped_is_found(browser: Browser, tmp_path: Path) -> None:
    found = browser.faults(page_with(tmp_path, label=PLANT), [PLANT])
    assert "the script of a label ran" in found
    assert f"not to be read on the page: {PLANT}" in found


@pytest.mark.parametrize(
    "without", ["slider.value = (+slider.value + 1) % 10;", 'timer ? "Play" : ', 'addEventListener("input", show)']
)
def test_a_player_that_does_not_play_is_found(browser: Browser, tmp_path: Path, without: str) -> None:
    url = page_with(tmp_path, without=without)
    with browser.opened(url) as page, pytest.raises(Exception, match=r"Timeout|does not stop|does not follow"):
        plays(page)
