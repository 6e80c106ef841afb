"""Sphinx's configuration; ``make docs`` builds the site."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from typing import Any

from airflow_provider_luma import __version__

# Importing Airflow writes a configuration to its home, and says so.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow_home_")
logging.disable(logging.INFO)
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

project = "airflow-provider-luma"
version = release = __version__
html_title = f"{project} {version}"
html_theme = "furo"
html_show_copyright = False
html_copy_source = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries = False

# A name of ours that leads nowhere fails the build. Airflow's and Python's have no page here, and fetching theirs would
# need the network.
nitpick_ignore_regex = [("py:.*", r"(?!airflow_provider_luma\b|LumaRay).*")]


def _signature(app: object, kind: str, *_: object) -> tuple[str, str] | None:
    """Show no constructor of an error: only the provider calls it."""
    return ("", "") if kind == "exception" else None


def setup(app: Any) -> None:
    """Connect what Sphinx asks."""
    app.connect("autodoc-process-signature", _signature)
