"""Check the links of a built site that stay in it: each page, file and anchor exists. Asks nobody."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """A page's links and anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name == "id" and value:
                self.anchors.add(value)


def broken(site: Path) -> list[str]:
    """Return the links that lead nowhere, each with its page."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {parts.fragment}
            if not target.is_file() or parts.fragment not in anchors:
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def main(folder: str) -> None:
    site = Path(folder).resolve()
    if not (site / "index.html").exists():
        sys.exit(f"{folder} has no site.")
    if found := broken(site):
        sys.exit("Links that lead nowhere:\n" + "\n".join(found))
    print(f"{folder}/index.html: every link within the site leads somewhere.")


if __name__ == "__main__":
    main(sys.argv[1])
