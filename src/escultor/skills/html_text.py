"""The text of an HTML document, its title and its time. Scripts, styles and templates are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SKIPPED = frozenset(("script", "style", "template", "noscript", "svg", "math", "head"))
_BLOCK_NAMES = (
    "address article aside blockquote dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr li main nav ol p pre section table td th tr ul br"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_TIMES = ("article:published_time", "date", "dc.date", "dcterms.created", "last-modified", "datepublished")
_CHARSET = re.compile(rb"charset\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_.:-]{1,40})")


class _Reader:
    """What lxml calls at each tag and text."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.title: list[str] = []
        self.time = ""
        self._skipped: list[str] = []  # the elements that are left out and open
        self._in_title = False

    def start(self, tag: str, given: Mapping[str, str]) -> None:
        if tag == "title":
            self._in_title = not self.title
        elif tag == "meta":
            name = given.get("property") or given.get("name") or given.get("itemprop") or ""
            if name.lower() in _TIMES:
                self.time = self.time or given.get("content", "")
        elif tag == "time":
            self.time = self.time or given.get("datetime", "")
        elif tag in _SKIPPED:
            self._skipped.append(tag)
        elif tag == "body":
            self._skipped.clear()  # of a head that was not closed
        if tag in _BLOCKS:
            heading = "#" * int(tag[1]) + " " if len(tag) == 2 and tag[1].isdigit() else ""
            self.parts += ["\n\n" if heading or tag == "p" else "\n", heading or "- " * (tag == "li")]

    def end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag in self._skipped:
            del self._skipped[self._skipped.index(tag) :]
        if tag in _BLOCKS and tag != "li":
            self.parts.append("\n")

    def data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._skipped:
            self.parts.append(data)

    def close(self) -> None:
        """Nothing is left to do at the end."""


def html_text(source: str) -> tuple[str, str, str]:
    """The text of HTML, headings marked as in Markdown; its title; the time that it names, as written."""
    from lxml.etree import HTMLParser, LxmlError  # linear, whatever is left open

    reader = _Reader()
    parser = HTMLParser(target=reader, encoding="utf-8", no_network=True, huge_tree=True)
    try:
        parser.feed(source.encode("utf-8", "replace"))
        parser.close()
    except LxmlError:  # nothing that is a tag or a text
        pass
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return text, " ".join("".join(reader.title).split()), reader.time


def html_charset(data: bytes) -> str:
    """The character set that the first kilobyte of an HTML file declares; without one UTF-8."""
    found = _CHARSET.search(data[:1024])
    return found[1].decode("ascii") if found else "utf-8"
