"""mkdocs' hook for `make site` (see mkdocs.yml): files outside docs/ become part of the site.

Pages link to each other as files of the repository, so that the links work there. mkdocs knows docs/ only. So
the hook makes README the site's first page, adds every other file outside docs/ that a page links to, and
changes the links to the places in the site. A link to nothing stays: `mkdocs build --strict` finds it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent
FIRST_PAGE = "README.md"
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=(?:#[^)\s]*)?\))")
"""The path in `[text](path#heading)`; links with a scheme have a colon."""
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>", re.IGNORECASE
)
"""A tag for which a browser asks another host."""


def on_files(files: Files, /, *, config: Any) -> Files:
    """Add README and what is linked outside of docs/, directly or through another page that is added."""
    from mkdocs.structure.files import File  # here: the rest of this module works without mkdocs

    waiting = [FIRST_PAGE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        content = (ROOT / path).read_bytes()
        if not path.startswith("docs/"):
            files.append(File.generated(config, site_path(path), content=content))
        if path.endswith(".md"):
            found = set(targets(path, content.decode())) - seen
            seen |= found
            waiting += [target for target in found if not target.startswith("docs/")]
    return files


def on_page_markdown(markdown: str, /, *, page: Any, config: Any, files: Files) -> str:
    """Change links between files of the repository to links between files of the site."""
    return in_site(repository_path(page.file.src_uri), markdown)


def on_post_page(output: str, /, *, page: Any, config: Any) -> str:
    """Refuse a page for which a browser would ask another host.

    Raises:
        PluginError: it has a script, a style or a picture from elsewhere.
    """
    from mkdocs.exceptions import PluginError

    if outside := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} is not to need another host: {outside[0]}")
    return output


def in_site(path: str, text: str) -> str:
    """Return the text of the file `path` of the repository with its links as the site needs them."""

    def changed(link: re.Match[str]) -> str:
        target = resolved(path, link[1])
        return link[1] if target is None else posixpath.relpath(site_path(target), _folder(site_path(path)))

    return LINK.sub(changed, text)


def targets(path: str, text: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    for link in LINK.findall(text):
        if target := resolved(path, link):
            yield target


def resolved(path: str, link: str) -> str | None:
    """The file of the repository that a link in the file `path` leads to; a folder stands for its README."""
    target = posixpath.normpath(posixpath.join(_folder(path), link))
    if (ROOT / target).is_dir():
        target = f"{target}/README.md"
    inside = not target.startswith("..")
    return target if inside and (ROOT / target).is_file() else None


def site_path(path: str) -> str:
    """Where a file of the repository is in the site's sources."""
    return SITE_PATHS.get(path, path.removeprefix("docs/"))


def repository_path(path: str) -> str:
    """The file of the repository that is at `path` in the site's sources."""
    if path in REPOSITORY_PATHS:
        return REPOSITORY_PATHS[path]
    return f"docs/{path}" if (ROOT / "docs" / path).exists() else path


SITE_PATHS: Mapping[str, str] = {FIRST_PAGE: "index.md"}
REPOSITORY_PATHS: Mapping[str, str] = {there: here for here, there in SITE_PATHS.items()}


def _folder(path: str) -> str:
    return posixpath.dirname(path) or "."
