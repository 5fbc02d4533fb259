"""Looks at a page in a real browser, as a reader with a mouse, with a keyboard, on a phone and at night does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
"""Which colours are looked at in which width."""
TABS = 40
"""How many elements are visited with the keyboard."""
RULES = ["wcag2a", "wcag2aa", "wcag21aa"]
"""What axe-core checks; contrast of text, at least 4.5 to 1, is in wcag2aa."""
PLANT = "<img src=x onerror=planted=1>"
"""A label or a key that runs a script where a page does not escape it."""

_STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"
_WIDE = """
() => {
  const root = document.documentElement, wide = root.scrollWidth - root.clientWidth;
  if (wide <= 0) return "";
  const all = [...document.body.querySelectorAll("*")];
  const past = all.filter((e) => e.getBoundingClientRect().right > root.clientWidth + 0.5);
  const first = past.find((e) => ![...e.children].some((child) => past.includes(child))) ?? root;
  return `${wide} px to the right of the window: ${first.outerHTML.slice(0, 100)}`;
}
"""
_TO_REACH = """
() => {
  const kinds = "a[href], button, input, select, textarea, summary, audio[controls], [role=button]";
  const all = [...document.querySelectorAll(kinds)];
  window.toReach = all.filter((e) => e.checkVisibility() && !e.disabled && e.getBoundingClientRect().width > 0);
  document.activeElement.blur();
  return window.toReach.length;
}
"""
_FOCUSED = """
() => {
  const focused = document.activeElement, at = window.toReach.indexOf(focused);
  if (focused === document.body) return null;
  const style = getComputedStyle(focused), told = focused.outerHTML.slice(0, 100);
  const parts = focused.matches("audio");  // its controls are the browser's own
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return { at, told, parts, seen: parts || outlined || style.boxShadow !== "none" };
}
"""


@dataclass(frozen=True, slots=True)
class Browser:
    """A running Chromium of Playwright, and axe-core's script."""

    chromium: Any
    axe: Any

    @contextmanager
    def opened(self, url: str, faults: list[str] | None = None) -> Iterator[Any]:
        """The page at a URL, in a window of its own.

        faults: gets what the page says on the console, and its requests to other places than `url` lies at, which do
        not leave the machine.
        """
        found = [] if faults is None else faults
        place = re.match(r"[a-z]+://[^/]*/", url)
        assert place is not None, f"{url} is not a URL"

        def meet(route: Any) -> None:
            address = route.request.url
            if address == url or (place[0].startswith("http") and address.startswith(place[0])):
                route.continue_()
            else:
                found.append(f"request outside: {address[:100]}")
                route.abort()

        context = self.chromium.new_context(viewport={"width": WIDTHS[0], "height": 900})
        try:
            context.route(re.compile("^(?!data:|blob:)"), meet)
            page = context.new_page()
            page.on("console", lambda said: found.append(f"console: {said.text}") if said.type == "error" else None)
            page.on("pageerror", lambda error: found.append(f"exception: {error}"))
            page.on("dialog", lambda dialog: found.append(f"dialog: {dialog.message}") or dialog.dismiss())
            page.goto(url, wait_until="load")
            yield page
        finally:
            context.close()

    def faults(self, url: str, texts: Sequence[str] = (), *, tabs: int = TABS) -> list[str]:
        """What is wrong with the page at a URL; nothing if it is as it should be.

        texts: what must be read on it, such as labels with `PLANT` in them. tabs: how many elements are visited with
        the keyboard; 0 for a page whose frame is not ours.
        """
        found: list[str] = []
        with self.opened(url, found) as page:
            shown = " ".join(page.locator("body").inner_text().split())
            found += [f"not to be read on the page: {text}" for text in texts if text not in shown]
            if page.evaluate("() => window.planted"):
                found.append("the script of a label ran")
            for width, scheme in zip(WIDTHS, SCHEMES, strict=True):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=scheme)
                if scheme != SCHEMES[0]:
                    page.reload(wait_until="load")  # scripts that choose the colours do so at the beginning
                page.add_style_tag(content=_STILL)
                if wide := page.evaluate(_WIDE):
                    found.append(f"overflow at {width} px: {wide}")
                found += [f"{line} ({width} px, {scheme})" for line in self._axe(page)]
            for width in WIDTHS if tabs else ():
                page.set_viewport_size({"width": width, "height": 900})
                page.reload(wait_until="load")  # so that Tab begins at the top
                found += [f"{line} ({width} px)" for line in _keyboard(page, tabs)]
        return list(dict.fromkeys(found))

    def _axe(self, page: Any) -> list[str]:
        """The violations that axe-core finds, each with one element."""
        said = self.axe.run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response["violations"]
        return [
            f"{one['id']} at {len(one['nodes'])} places: {' '.join(one['nodes'][0]['html'].split())[:160]}; "
            f"{' '.join(one['nodes'][0].get('failureSummary', '').split())[:240]}"
            for one in said
        ]


def plays(page: Any, sample: str = ".clip") -> None:
    """Plays a sample with the keyboard alone, and waits until its pictures or its sound have moved on."""
    first = page.locator(sample).first
    if first.locator("audio").count():
        sound = first.locator("audio")
        sound.focus()
        page.keyboard.press("Space")
        page.wait_for_function("(sound) => sound.currentTime > 0.02", arg=sound.element_handle(), timeout=5000)
        head = first.locator(".playhead").first
        if head.count():
            page.wait_for_function("(head) => parseFloat(head.style.left) > 0", arg=head.element_handle(), timeout=5000)
        return
    slider = first.locator("input[type=range]")
    button = first.locator("button")
    before = slider.input_value()
    button.focus()
    page.keyboard.press("Space")
    page.wait_for_function(
        "([slider, before]) => slider.value !== before", arg=[slider.element_handle(), before], timeout=5000
    )
    page.keyboard.press("Space")
    assert button.inner_text() == "Play", "the player does not stop"
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "1", "the arrow keys do not move the slider"
    assert first.locator("output").inner_text().startswith("frame 2 of "), "the player does not follow its slider"
    assert first.locator(".screen img, .screen .none").count(), "the player shows no picture"


def _keyboard(page: Any, tabs: int) -> list[str]:
    """What a reader without a mouse cannot reach or see, of the first elements."""
    wanted = page.evaluate(_TO_REACH)
    found, reached, last, same = [], set(), "", 0
    for _ in range(2 * tabs):
        page.keyboard.press("Tab")
        focused = page.evaluate(_FOCUSED)
        if focused is None or len(reached) >= tabs:
            break
        if not focused["seen"]:
            found.append(f"focus is not seen: {focused['told']}")
        reached.add(focused["at"])
        same = same + 1 if focused["told"] == last and not focused["parts"] else 0
        last = focused["told"]
        if same == 3:
            return [*found, f"the keyboard cannot leave: {last}"]
    missed = [at for at in range(min(wanted, tabs)) if at not in reached and at <= max(reached, default=wanted)]
    told = page.evaluate("(all) => all.map((at) => window.toReach[at].outerHTML.slice(0, 100))", missed)
    return [*found, *(f"not reached with the keyboard: {one}" for one in told)]


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, until the block ends. Raises LookupError, which says what is missing."""
    try:
        from axe_playwright_python.sync_playwright import Axe
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise LookupError(f"{error.name} is not installed; make test-services installs it") from None
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise LookupError("no Chromium is installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        words = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=program, args=words)
        try:
            yield Browser(chromium, Axe())
        finally:
            chromium.close()


def url_of(path: Path) -> str:
    """The URL of a file."""
    return path.resolve().as_uri()
