"""Sphinx' settings. ``make docs`` builds the site into build/docs, and fails on every warning.

Why Sphinx: docs/adr/0023-documentation.md.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions")]

from lmeraser import __version__  # noqa: E402

for quiet in ("alembic", "httpx2", "lmeraser"):  # a build shows warnings, not each call of a tutorial
    logging.getLogger(quiet).setLevel(logging.WARNING)

project = "lmeraser"
author = "the authors of lmeraser"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx' name
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "page_links",
    "mathtext",
    "reference",
]
source_suffix = [".rst", ".md"]
exclude_patterns = ["tutorials", "extensions", "generated/tutorials/*.py", "generated/tutorials/*.ipynb"]
# Every reference has to lead somewhere, types in signatures included, so that a class that a public method takes
# or gives cannot be left out. Names of other libraries are not looked up: the site is built without a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(annotated_types|collections|datetime|numpy|np|os|pathlib|uuid|sklearn)\..*"),
    (
        "py:.*",
        r"ArrayLike|TypeAliasForwardRef|DataFrame|Dataset|IterableDataset|NDArray|UUID|date|datetime|dict\[str",
    ),
    # Aliases, explained where they are used.
    ("py:.*", r"CertificateForm|ExportFormat|Name|Names|Query|Regulation"),
    ("py:.*", r"lmeraser\.config\.\w+\.\w+Config"),  # the page of settings has them
    # What only those who extend lmeraser meet.
    ("py:.*", r"(lmeraser\.[\w.]+\.)?(Backbone|InputEncoder|LocalExecutor|PayloadFormat|Progress|Workspace)"),
    ("py:.*", r"lmeraser\.[\w.]+\.(ArtifactReader|Batch|Model|ModelSnapshot|Quarantine|RequestOnRecord|Session)"),
]

myst_enable_extensions = ["deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]

default_role = "code"  # docstrings quote names as `name`
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "NDArray": "NDArray"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False

# Tutorials are scripts that are run when the site is built; a script that fails, fails the build.
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "generated/tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "min_reported_time": 0,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "download_all_examples": False,
    "notebook_extensions": [],
}

html_theme = "furo"
html_title = f"lmeraser {release}"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
