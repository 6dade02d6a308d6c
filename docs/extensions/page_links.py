"""Names of pages in backquotes become links to them.

The pages name each other as files, because they are also read in the repository: `docs/guarantee.md`. On the site
such a name is a link to the page; one that leads nowhere is a warning, as for every other reference.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

_PAGE = re.compile(r"docs/([\w./-]+)\.md")


class PageLinks(SphinxTransform):  # type: ignore[misc]  # Sphinx is read as untyped
    """Replaces literals that are the path of a page."""

    default_priority = 200

    def apply(self, **options: Any) -> None:
        """Replace them in one document."""
        for literal in list(self.document.findall(nodes.literal)):
            found = _PAGE.fullmatch(literal.astext())
            if found is None or isinstance(literal.parent, nodes.reference | addnodes.pending_xref):
                continue
            target = addnodes.pending_xref(
                "",
                nodes.inline("", literal.astext()),
                refdoc=self.env.docname,
                refdomain="std",
                reftype="doc",
                reftarget=f"/{found[1]}",
                refexplicit=False,
                refwarn=True,
            )
            target.source, target.line = self.document["source"], literal.line
            literal.replace_self(target)


def setup(app: Sphinx) -> dict[str, object]:
    """Register the transform."""
    app.add_transform(PageLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
