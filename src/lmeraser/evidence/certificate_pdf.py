"""A certificate as PDF: the sections of `presentation` on A4 pages.

The file depends on the facts alone: its date is that of the completion. Fonts are those that come with matplotlib;
a character that they lack is shown as an escape. Needs the extra ``pdf``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.core.terminal import printable
from lmeraser.core.time import from_text
from lmeraser.errors import ConfigError
from lmeraser.evidence.presentation import TITLE, Section, sections

if TYPE_CHECKING:
    from fpdf import FPDF

_FONT, _MONO = "DejaVuSans", "DejaVuSansMono"
_FILES = {(_FONT, ""): "DejaVuSans.ttf", (_FONT, "B"): "DejaVuSans-Bold.ttf", (_MONO, ""): "DejaVuSansMono.ttf"}
_MARGIN = 20  # millimetres, as all lengths here
_LABEL = 38
_LINE = 5
_SIZE, _SMALL, _TITLE = 9.5, 7.5, 16  # points
_GREY = 110


def to_pdf(facts: Mapping[str, Any]) -> bytes:
    """The PDF of a certificate of any format.

    Args:
        facts: of the certificate, as JSON values.

    Raises:
        ConfigError: the library that writes PDF files is not installed.
    """
    pdf = _document(facts)
    pdf.set_font(_FONT, "B", _TITLE)
    pdf.cell(0, 10, TITLE.capitalize(), new_x="LMARGIN", new_y="NEXT")
    for section in sections(facts):
        _add(pdf, section)
    return bytes(pdf.output())


def _document(facts: Mapping[str, Any]) -> FPDF:
    try:
        from fpdf import FPDF
    except ImportError:
        raise ConfigError(
            "PDF library not installed", got="fpdf2 is missing", next_step="pip install 'lmeraser[pdf]'"
        ) from None
    request = facts["request"]["id"]

    class Document(FPDF):
        """Pages with a footer."""

        def footer(self) -> None:
            self.set_y(-_MARGIN + 6)
            self.set_font(_FONT, "", _SMALL)
            self.set_text_color(_GREY)
            self.cell(
                0, _LINE, f"Request {request}  ·  only the JSON file is signed  ·  page {self.page_no()}/{{nb}}"
            )
            self.set_text_color(0)

    pdf = Document(format="A4")
    pdf.set_creation_date(from_text(facts["request"]["completed"]))
    pdf.set_title(f"{TITLE.capitalize()} {request}")
    pdf.set_creator(facts["software"])
    pdf.set_lang("en")
    pdf.set_margins(_MARGIN, _MARGIN, _MARGIN)
    pdf.set_auto_page_break(True, margin=_MARGIN)
    for (family, style), name in _FILES.items():
        pdf.add_font(family, style, _fonts() / name)
    pdf.add_page()
    return pdf


def _fonts() -> Path:
    """The folder of the fonts that come with matplotlib, which is not imported: that takes long."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


def _add(pdf: FPDF, section: Section) -> None:
    """Write a section below what is on the page."""
    if section.title:
        pdf.ln(3)
        pdf.set_font(_FONT, "B", _SIZE + 1.5)
        pdf.cell(0, 7, section.title, new_x="LMARGIN", new_y="NEXT")
    for label, value in section.rows:
        pdf.set_font(_FONT, "", _SIZE)
        pdf.set_text_color(_GREY)
        pdf.cell(_LABEL, _LINE, label)
        pdf.set_text_color(0)
        if "sha256:" in value:
            pdf.set_font(_MONO, "", _SMALL)
        pdf.multi_cell(0, _LINE, _shown(pdf, value), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font(_FONT, "", _SIZE)
    for paragraph in section.paragraphs:
        pdf.multi_cell(0, _LINE, _shown(pdf, paragraph), align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(1)
    for item in section.items:
        pdf.cell(_LINE, _LINE, "•")
        pdf.multi_cell(0, _LINE, _shown(pdf, item), align="L", new_x="LMARGIN", new_y="NEXT")


def _shown(pdf: FPDF, text: str) -> str:
    """A text without control characters, in which characters that the font lacks are escapes."""
    glyphs = pdf.current_font.cmap  # type: ignore[union-attr]  # a font was set
    return "".join(each if ord(each) in glyphs else ascii(each)[1:-1] for each in printable(text))
