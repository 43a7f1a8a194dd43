"""The domain of each package, as a table to read and correct; a package that is missing is `other`."""

from __future__ import annotations

DOMAINS = ("math", "ai-ml", "data", "web", "systems", "language", "text", "testing", "tools", "other")

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
