"""Sphinx settings. Built with warnings as errors: ``sphinx-build -W -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path

import rivage

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rivage"
author = "The rivage authors"
project_copyright = "the rivage authors"
version = release = rivage.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "api_pages",
    "mathml",
    "settings_tables",
]
exclude_patterns = ["_build", "_ext", "_figures"]
html_theme = "furo"
html_title = f"rivage {release}"
html_math_renderer = "mathml"
smartquotes_action = "D"  # dashes; quotation marks stay, "all" is a value to be typed

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
# Two classes may share a name (the job `Local`, the method `Local`); the first one found is linked.
suppress_warnings = ["ref.python"]
napoleon_numpy_docstring = False
napoleon_use_rtype = False
