"""Equations as inline SVG, drawn by matplotlib when the site is built: readers load nothing from elsewhere."""

from __future__ import annotations

import base64
import io

from docutils import nodes
from matplotlib import rc_context
from matplotlib.mathtext import math_to_image
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

_SIZE = 11.5  # pt


def _picture(node: nodes.math | nodes.math_block, style: str) -> str:
    """An `img` element whose height grows with the text around it; its text is the equation as TeX."""
    tex = " ".join(node.astext().split())
    drawn = io.BytesIO()
    with rc_context(
        {"svg.fonttype": "path", "svg.hashsalt": "lmeraser", "mathtext.fontset": "cm", "font.size": _SIZE}
    ):
        depth = math_to_image(f"${tex}$", drawn, dpi=72, format="svg", color="#707070")
    text = drawn.getvalue().decode()
    height = float(text.split('height="')[1].split("pt")[0])
    data = base64.b64encode(text.encode()).decode()
    place = f"height:{height / _SIZE:.2f}em;vertical-align:{-depth / _SIZE:.2f}em;{style}"
    shown = tex.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{shown}" style="{place}">'


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write an equation in a line."""
    self.body.append(_picture(node, ""))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write an equation on its own, with its number where it has one."""
    number = f"<span>({get_node_equation_number(self, node)})</span>" if node.get("number") else ""
    lines = "<br>".join(_picture(nodes.math_block(line, line), "margin:.3em 2em") for line in _lines(node))
    self.body.append(f'<div class="math">{lines}{number}</div>')
    raise nodes.SkipNode


def _lines(node: nodes.math_block) -> list[str]:
    return [line for line in node.astext().split("\\\\") if line.strip()]


def setup(app: Sphinx) -> dict[str, object]:
    """Register the renderer, and make it the one that is used."""
    app.add_html_math_renderer("mathtext", (visit_inline, None), (visit_block, None))
    app.connect("config-inited", lambda _, config: config.__setattr__("html_math_renderer", "mathtext"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
