"""``make tag``: a release's tag is its version's, and the changelog has a section for it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from airflow_provider_luma import __version__


def fault(tag: str, changelog: str) -> str | None:
    """Return what is wrong with a tag; None if nothing is."""
    if tag != f"v{__version__}":
        return f"The tag {tag!r} is not that of version {__version__}, v{__version__}."
    if not re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        return f"CHANGELOG.md has no dated section for {__version__}."
    return None


def main(arguments: list[str]) -> str | None:
    """Return what is wrong with the tag that is given, or that a workflow runs for."""
    (tag,) = arguments or [os.environ.get("GITHUB_REF_NAME", "")]
    return fault(tag, Path("CHANGELOG.md").read_text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
