"""Text of data reaches a terminal without control characters."""

import io
import logging

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from maskstream.shards.printable import DataConsole, PrintableFormatter, make_printable

HOSTILE = (
    "a\x1b[31mb\x1b]0;title\x07c\rd\x08e\x9b2Jf\N{RIGHT-TO-LEFT OVERRIDE}g\N{LEFT-TO-RIGHT ISOLATE}h\n"
    "i\udcffj\x00\x7f\u2028k"
)
SHOWN = r"a\x1b[31mb\x1b]0;title\x07c\rd\x08e\x9b2Jf\u202eg\u2066h\ni\udcffj\x00\x7f\u2028k"
CONTROLS = {char for char in HOSTILE if ord(char) < 32 or not char.isprintable()}


def test_controls_are_escaped_and_all_else_stays():
    assert make_printable(HOSTILE) == SHOWN
    plain = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \u65e5\u672c \U0001f469\u200d\U0001f52c \u05d0 [b]x[/b] \\ 'y'"
    assert make_printable(plain) == plain


@pytest.mark.parametrize("is_terminal", [True, False])
def test_whatever_a_console_prints(is_terminal):
    out = io.StringIO()
    console = DataConsole(file=out, force_terminal=is_terminal, color_system=None, width=200)
    console.print(HOSTILE, markup=False, highlight=False, soft_wrap=True)
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    with Progress(TextColumn("{task.description}"), console=console) as bar:
        bar.add_task(HOSTILE)
    found = set(out.getvalue()) & CONTROLS
    if is_terminal:  # rich's own: the cursor while the bar is shown, the start of the line
        assert "\x1b[31m" not in out.getvalue()
        assert "\x1b]0;" not in out.getvalue()
        found -= {"\x1b", "\r"}
    assert found == {"\n"}
    assert SHOWN in out.getvalue()


def test_colours_of_ours_stay():
    out = io.StringIO()
    DataConsole(file=out, force_terminal=True, color_system="standard").print("[red]error[/] \x1b[32mx")
    assert out.getvalue() == "\x1b[31merror\x1b[0m \\x1b\x1b[1m[\x1b[0m32mx\n"


def test_log_lines():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "replaced %s", (HOSTILE,), None)
    assert PrintableFormatter("%(message)s").format(record) == f"replaced {SHOWN}"
