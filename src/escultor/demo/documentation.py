"""Training data from documentation entries: documents to pre-train on, and gold Trinities.

A docstring whose first line is a summary (PEP 257) is a pair written by a person: the body with the signature
is the raw document, the first line its summary.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from escultor.demo.python_docs import DocEntry
from escultor.ids import hash_value
from escultor.rng import unit
from escultor.skills.trinity import Trinity, mentioned_names, prompt_for, purpose_of
from escultor.types import Consent, Document, Example, Origin

# Packages are held out by the hash of their name, so that a package is on the same side everywhere. The salt
# was chosen once so that the largest packages are on the training side.
SPLIT_SALT = "packages/1"
HELD_OUT_SHARE = 0.2
TRAFFIC_SHARE = 0.15  # of the training packages' Trinities: kept aside for the users of the loop

MAX_BODY_CHARS = 480
MAX_SIGNATURE_CHARS = 100
SUMMARY_CHARS = (15, 120)
MIN_BODY_CHARS = 80
MAX_SAME_SUMMARY = 2


@dataclass(frozen=True, slots=True)
class Gold:
    """A document with the Trinity that its author wrote."""

    id: str
    package: str
    document: str
    trinity: Trinity

    def example(self) -> Example:
        origin = Origin((self.id,), "trinity-gold/1", Consent.TRAIN)
        return Example(self.id, prompt_for(self.document), self.trinity.to_json(), origin)


def is_held_out(package: str) -> bool:
    """Whether a package is never trained on."""
    return unit(0, SPLIT_SALT, package) < HELD_OUT_SHARE


def is_traffic(gold: Gold) -> bool:
    """Whether a training package's document is reserved for requests of the demonstration's users."""
    return unit(0, SPLIT_SALT, "traffic", gold.id) < TRAFFIC_SHARE


def raw_document(entry: DocEntry) -> str:
    """The signature and the body of a docstring, both cut to a maximum length between words or parameters."""
    return f"{_cut_signature(entry)}\n\n{_cut_body(entry.body)}"


def golds(entries: Iterable[DocEntry], counts: Counter[str] | None = None) -> list[Gold]:
    """The entries that make a clean pair; all are counted by the reason for which they do not."""
    counts = Counter() if counts is None else counts
    kept: list[Gold] = []
    summaries: Counter[str] = Counter()
    for entry in entries:
        summary, reason = entry.summary, None
        if entry.kind == "module" or any(part.startswith("_") for part in entry.name.split(".")):
            reason = "not public"
        elif not SUMMARY_CHARS[0] <= len(summary) <= SUMMARY_CHARS[1]:
            reason = "summary too short or long"
        elif not summary.endswith(".") or not summary.isascii() or not summary[0].isupper():
            reason = "summary is no sentence"
        elif len(entry.body) < MIN_BODY_CHARS:
            reason = "no body"
        elif summaries[summary] >= MAX_SAME_SUMMARY:
            reason = "summary repeated"
        counts[reason or "kept"] += 1
        if reason is None:
            summaries[summary] += 1
            kept.append(_gold(entry))
    return kept


def documents(entries: Iterable[DocEntry]) -> list[Document]:
    """Documents to pre-train on: every entry as it is, and one with a summary also as a record: its body,
    then name, mentions, domain, purpose and summary as a field list. Records let a small model practise what
    Trinity needs: to copy a name, and to summarise a document in a line."""
    texts = []
    for entry in entries:
        plain = f"{entry.signature}\n\n{entry.doc}"
        texts.append(_document(entry, plain, "documentation/1"))
        if _has_record(entry):
            texts.append(_document(entry, _record(entry), "documentation-record/1"))
    return texts


def records(entries: Sequence[DocEntry], seed: int = 0) -> list[Document]:
    """Entries with a summary and a body as their raw document followed by their Trinity, and once more under
    the path of another entry (`moved`), so that a name must be read and cannot be memorised. Documents
    reserved for users' requests are left out."""
    suitable = [entry for entry in entries if _has_record(entry) and not is_traffic(_gold(entry))]
    paths = sorted({entry.name.rpartition(".")[0] for entry in suitable} - {""})
    texts = []
    for entry in suitable:
        path = paths[int(unit(seed, "records", entry.name) * len(paths))]
        for version, rule in ((entry, "trinity-record/1"), (moved(entry, path), "trinity-record-moved/1")):
            gold = _gold(version)
            texts.append(_document(entry, f"{gold.document}\n\n{gold.trinity.to_json()}", rule))
    return texts


def moved(entry: DocEntry, path: str) -> DocEntry:
    """The entry as if it were under `path`: with its own last name, text and domain."""
    name = f"{path}.{entry.name.rpartition('.')[2]}"
    return replace(entry, name=name, signature=entry.signature.replace(entry.name, name, 1))


def _has_record(entry: DocEntry) -> bool:
    return len(entry.summary) <= 2 * SUMMARY_CHARS[1] and len(entry.body) >= MIN_BODY_CHARS


def _gold(entry: DocEntry) -> Gold:
    document = raw_document(entry)
    trinity = Trinity(
        entity=entry.name,
        domain=domain_of(entry.package),
        purpose=purpose_of(document),
        entities=mentioned_names(document, own_name=entry.name),
        summary=entry.summary,
    )
    return Gold(hash_value([entry.name, document]), entry.package, document, trinity)


def _record(entry: DocEntry) -> str:
    document = raw_document(entry)
    mentions = ", ".join(mentioned_names(document, own_name=entry.name)) or "none"
    return (
        f"{document}\n\n:name: {entry.name}\n:mentions: {mentions}\n:domain: {domain_of(entry.package)}\n"
        f":purpose: {purpose_of(document)}\n:summary: {entry.summary}"
    )


def _document(entry: DocEntry, text: str, rule: str) -> Document:
    return Document(hash_value(text), text, Origin((f"{entry.package}:{entry.name}",), rule))


def _cut_signature(entry: DocEntry) -> str:
    text = entry.signature
    if len(text) <= max(MAX_SIGNATURE_CHARS, len(entry.name) + 6):
        return text
    room = max(MAX_SIGNATURE_CHARS, len(entry.name) + 6) - 6
    return text[:room].rsplit(",", 1)[0].rstrip("(, ") + (", ...)" if "," in text[:room] else "(...)")


def _cut_body(text: str) -> str:
    text = re.sub(r"(?<![ \t])[ \t]+\n", "\n", text)
    if len(text) <= MAX_BODY_CHARS:
        return text
    head = text[:MAX_BODY_CHARS]
    for separator in ("\n", " "):
        end = head.rfind(separator)
        if end > MAX_BODY_CHARS // 2:
            return head[:end].rstrip()
    return head


def balanced(golds_: Sequence[Gold], count: int) -> list[Gold]:
    """At most `count` of the golds; a package's share grows with the square root of its size, so that the
    largest packages do not dominate. Deterministic and independent of order."""
    by_package: dict[str, list[Gold]] = {}
    for gold in sorted(golds_, key=lambda g: unit(0, "balanced", g.id)):
        by_package.setdefault(gold.package, []).append(gold)
    ranked = [
        (rank / len(members) ** 0.5, gold)
        for members in by_package.values()
        for rank, gold in enumerate(members)
    ]
    ranked.sort(key=lambda pair: (pair[0], pair[1].id))
    return [gold for _, gold in ranked[:count]]


# --- domains: a table to read and correct -------------------------------------------------------

_TABLE = {
    "math": "cmath decimal fractions math mpmath numbers numpy pydecimal random scipy statistics sympy "
    "secrets gmpy2 statsmodels",
    "ai-ml": "accelerate evalica functorch huggingface_hub openai peft safetensors sklearn timm tokenizers "
    "torch torchgen transformers trl xgboost keras tensorflow jax",
    "data": "alembic array bisect collections csv dbm heapq networkx pandas pickle psycopg psycopg_binary "
    "pyarrow pydantic pydantic_core pydantic_settings shelve sortedcontainers sqlalchemy sqlite3 struct "
    "tzdata zoneinfo calendar datetime dateutil pydatetime graphlib queue copy copyreg marshal polars",
    "web": "anyio cgi email fastapi ftplib h11 h2 html http httpcore httpcore2 httpx httpx2 idna imaplib "
    "ipaddress mailbox mimetypes nntplib openapi poplib requests smtplib socketserver starlette urllib "
    "urllib3 uvicorn webbrowser wsgiref xml xmlrpc flask django aiohttp websockets sniffio ssl socket "
    "certifi",
    "systems": "asyncio concurrent contextlib ctypes fcntl filecmp filelock fsspec gc getpass glob "
    "logging mmap multiprocessing os pathlib platform posixpath psutil pty resource sched selectors "
    "shutil signal stat subprocess sys syslog tarfile tempfile threading time trace tracemalloc zipfile "
    "bz2 gzip lzma zlib zipapp ntpath genericpath pwd grp errno fileinput io pyio dotenv truststore s3fs",
    "language": "abc annotated_types ast builtins code codeop compileall dataclasses dis enum "
    "functools imp importlib inspect keyword linecache markupsafe opcode operator parso pkgutil pyclbr "
    "reprlib runpy site symtable token tokenize traceback types typing typing_extensions typing_inspection "
    "warnings weakref mypy jedi sre_compile sre_parse",
    "text": "difflib gettext jinja2 locale mako markdown markdown_it mdurl pprint pygments rapidfuzz re "
    "regex rich string textwrap unicodedata yaml json tomllib tomli configparser plistlib base64 binascii "
    "codecs encodings quopri uu stringprep jiter",
    "testing": "cProfile doctest execnet hypothesis iniconfig pluggy profile pstats pytest timeit "
    "unittest xdist bdb pdb faulthandler coverage tox py",
    "tools": "argparse click cmd curses distutils ensurepip getopt hatchling nodeenv optparse packaging pip "
    "pkg_resources pydoc pyright readline rlcompleter ruff setuptools shellingham shlex tkinter tqdm "
    "turtle typer venv wheel uv cython",
}

_DOMAIN_OF = {package: domain for domain, packages in _TABLE.items() for package in packages.split()}


def domain_of(package: str) -> str:
    """The domain of a top-level package; `other` if the table has none."""
    return _DOMAIN_OF.get(package, "other")
