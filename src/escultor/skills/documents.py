"""Documents as text: plain text, Markdown, reStructuredText, source files, HTML, e-mail, .docx and PDF.

Run as a program, it answers each path on stdin (a JSON string a line) by the document or the fault, as JSON,
and may take as many seconds of processor time for each as its argument says: by it
`escultor.skills.document_processes` reads files of others in processes that can be ended.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from escultor.errors import DataError, FaultError, InputError
from escultor.skills.html_text import html_charset, html_text

MAX_BYTES = 64 << 20  # of a file
MAX_CHARACTERS = 8 << 20  # of its text
MAX_UNZIPPED = 256 << 20  # bytes of what a .docx holds
MEMORY_BYTES = 3 << 30  # of a reading process
_SOURCES = (
    "bash c cc cfg clj conf cpp cs css csv ex go h hpp hs ini java jl js json kt lua m ml php pl proto ps1 "
    "py r rb rs scala sh sql swift toml ts tsx vue xml yaml yml"
)
EXTRA = "pip install 'escultor[documents]'"
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # how .doc files begin, and .docx files with a password
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# The time that the head of a text names, as front matter (date: …), a field (:date: …) or a line.
_TIME = re.compile(
    r"^[ \t]{0,8}:?(?:date|published|updated|created|last[-_ ]modified):[ \t]{0,8}[\"']?"
    r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:?\d\d)?)?)",
    re.IGNORECASE | re.MULTILINE,
)
_HEAD = 4096  # characters in which it is looked for


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """The text of a file, its title where it names one, and the time that it names: ISO 8601 with an offset
    (UTC where the file gives none), None where it names none."""

    text: str
    title: str = ""
    time: str | None = None


def read_document(path: Path) -> ReadDocument:
    """The document in a file, by the ending of its name. Raises DataError, which names the file, with the
    reason where it cannot be read, InputError where a library is missing."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in READERS:
        raise DataError(f"{path} is of no known kind", path.suffix or "no ending", sorted(READERS))
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError("it is too large", f"{size} bytes", f"at most {MAX_BYTES}", "split it")
        if size == 0:
            raise DataError("it is empty", "0 bytes", "a file with text")
        document = READERS[suffix](path.read_bytes())
    except DataError as error:
        raise DataError(f"{path}: {error.what}", error.got, error.allowed, error.remedy) from error
    except ImportError as error:
        raise InputError(f"{path} cannot be read", f"{error.name} is not installed", EXTRA) from error
    except (Exception, RecursionError) as error:  # whatever a library raises on a broken file
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path} cannot be read", why, f"a sound .{suffix} file") from error
    text = document.text.encode("utf-8", "replace").decode().replace("\0", "\ufffd").strip()
    if not text:
        remedy = "a scan needs OCR first" if suffix == "pdf" else None
        raise DataError(f"{path} holds no text", "nothing to read", "a file with text", remedy)
    if len(text) > MAX_CHARACTERS:
        allowed = f"at most {MAX_CHARACTERS}"
        raise DataError(f"{path} is too long", f"{len(text)} characters", allowed, "split it")
    return ReadDocument(text, " ".join(document.title.split())[:200], document.time)


def iso_time(value: str | datetime | None) -> str | None:
    """A time as ISO 8601 with an offset; None for what is none."""
    try:
        found = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    except ValueError:
        return None
    if found is None or not 1 < found.year < 9999:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat(timespec="seconds")


def _plain(data: bytes) -> ReadDocument:
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        remedy = "convert it: iconv -f latin1 -t utf-8"
        raise DataError(f"the text is not {encoding}", str(error), "UTF-8", remedy) from error
    if "\0" in text:
        raise DataError("it is binary", "it holds zero bytes", "text")
    found = _TIME.search(text[:_HEAD])
    heading = re.match(r"\s{0,64}#{1,6} ([^\n]{1,200})", text)
    return ReadDocument(
        text.replace("\r\n", "\n"), heading[1] if heading else "", iso_time(found and found[1])
    )


def _html(data: bytes, charset: str = "") -> ReadDocument:
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), charset or html_charset(data))
    text, title, written = html_text(data.decode(encoding, "replace"))
    return ReadDocument(text, title, iso_time(written))


def _email(data: bytes) -> ReadDocument:
    message: Any = message_from_bytes(data, policy=policy.default)
    if not any(message[name] for name in ("from", "to", "date", "subject")):
        raise DataError("it is no e-mail", "it has no From, To, Date or Subject", "an .eml file")
    body = message.get_body(("plain", "html"))
    text = "" if body is None else body.get_content()
    if body is not None and body.get_content_subtype() == "html":
        text = html_text(text)[0]
    heads = [f"{name}: {message[name]}" for name in ("From", "To", "Date", "Subject") if message[name]]
    attached = [f"Attachment (not read): {a.get_filename() or '?'}" for a in message.iter_attachments()]
    try:
        sent = parsedate_to_datetime(str(message["date"]))
    except ValueError:
        sent = None
    text = "\n\n".join(["\n".join(heads), text.strip(), *attached])
    return ReadDocument(text, str(message["subject"] or ""), iso_time(sent))


def _docx(data: bytes) -> ReadDocument:
    from docx import Document as open_docx
    from docx.table import Table

    if data.startswith(_OLE):
        remedy = "save it as .docx, without a password"
        raise DataError("it is encrypted, or of Word before 2007", "an OLE file", "a .docx file", remedy)
    with zipfile.ZipFile(BytesIO(data)) as archive:
        size = sum(each.file_size for each in archive.infolist())
        if size > MAX_UNZIPPED:
            raise DataError("it is too large", f"{size} bytes unzipped", f"at most {MAX_UNZIPPED}")
    opened = open_docx(BytesIO(data))
    blocks: list[str] = []
    for block in opened.iter_inner_content():
        if isinstance(block, Table):
            blocks += [" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in block.rows]
            continue
        level = re.fullmatch(r"(?:Heading (\d)|Title)", str(block.style and block.style.name))
        blocks.append(f"{'#' * int(level[1] or 1)} {block.text}" if level else block.text)
    core = opened.core_properties
    return ReadDocument(
        "\n\n".join(filter(str.strip, blocks)), core.title, iso_time(core.modified or core.created)
    )


def _pdf(data: bytes) -> ReadDocument:
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise DataError("it is encrypted", "a password is needed", remedy="save it without one")
    text = "\n\n".join(page.extract_text() for page in reader.pages)
    meta = reader.metadata
    try:
        written = None if meta is None else meta.modification_date or meta.creation_date
    except ValueError:  # a date that is none
        written = None
    return ReadDocument(text, str((meta and meta.title) or ""), iso_time(written))


READERS: dict[str, Callable[[bytes], ReadDocument]] = {
    **dict.fromkeys(("txt", "md", "markdown", "rst", "text", *_SOURCES.split()), _plain),
    **dict.fromkeys(("html", "htm", "xhtml"), _html),
    "eml": _email,
    "docx": _docx,
    "pdf": _pdf,
}


def main(cpu_limit_s: int) -> None:
    """Answer the paths on stdin, each by one line. What libraries print does not come between."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit("RLIMIT_AS", MEMORY_BYTES)
    for line in sys.stdin:
        _limit("RLIMIT_CPU", int(time.process_time()) + cpu_limit_s)
        try:
            found: dict[str, Any] = {"document": asdict(read_document(Path(json.loads(line))))}
        except (InputError, FaultError) as error:
            found = {"fault": str(error)}
        except MemoryError:
            found = {"fault": f"it needs more than {MEMORY_BYTES >> 30} GiB of memory"}
        print(json.dumps(found), file=answers, flush=True)


def _limit(name: str, most: int) -> None:
    """Lower the soft limit of a resource of this process, on systems that have it."""
    with suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        kind = getattr(resource, name)
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
