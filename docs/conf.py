"""The documentation: MyST pages whose every cell runs at each build, and API pages taken from the docstrings.

    python -m sphinx -W --keep-going docs docs/_build/html
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ["IPYTHONDIR"] = str(HERE / "_ipython")  # figures of the pages' kernels as SVG
os.environ["PYTHONWARNINGS"] = "error::RuntimeWarning"

import npreparam  # noqa: E402

project = "npreparam"
author = "the npreparam developers"
copyright = "the npreparam developers, Apache-2.0"
version = release = npreparam.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "mathml", "docstrings", "checks"]
exclude_patterns = ["_build", "_ipython", "examples"]
html_theme = "furo"
html_title = "npreparam"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_block", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

nb_execution_mode = "force"  # nothing is shown that did not run in this build
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
nb_number_source_lines = False

nitpicky = False
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {name: name for name in ("Array", "Padding", "Size2", "Pair")}
autodoc_default_options = {"members": True, "show-inheritance": False}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
linkcheck_timeout = 20
suppress_warnings = ["mystnb.unknown_mime_type"]
