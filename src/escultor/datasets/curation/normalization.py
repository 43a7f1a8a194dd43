"""Texts as numbers: normal forms, windows of bytes, runs of words; hashed alike on every machine."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from escultor.datasets.curation.rows import RowPart

Hashes = np.ndarray  # (n,) uint64
BLANK = 32
WINDOW = 8  # bytes of a shingle: exactly one 64-bit word
_WORD = re.compile(r"\w+")
# What a byte becomes in a text's normal form: words fold to lower case, what is no word is a blank. Words
# that are not ASCII come folded already; NUL stands between texts.
_KEPT = re.compile(r"[\w\0]", re.ASCII)
_PLAIN = bytes(c if c > 127 else ord(chr(c).lower()) if _KEPT.match(chr(c)) else BLANK for c in range(256))
_GAP = "\0" * WINDOW
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


def squashed(text: str) -> str:
    """NFKC, case folded, runs of white space as one blank: what makes two texts the same."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def words_of(text: str) -> list[str]:
    """The words of a text, case folded; punctuation is left out."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


def mixed(values: Hashes) -> Hashes:
    """Every value scattered over 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = values + _BASE
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def salt(role: str) -> np.uint64:
    """The number that tells texts of one role from those of another."""
    return np.uint64(zlib.crc32(role.encode()) * 0x9E3779B1)


# --- windows of bytes ---------------------------------------------------------------------------


def windows(rows: Sequence[Sequence[RowPart]]) -> tuple[Hashes, np.ndarray]:
    """The 8-byte windows of each row's words, hashed with the role of the text they lie in, and (n + 1,)
    where each row begins. A text ends in zeros, so that the shortest has a window too."""
    flat, lengths = _normal([text for parts in rows for _, text in parts])
    inside = flat != 0
    ends = np.cumsum(lengths + WINDOW) - WINDOW
    inside[ends[lengths == 0]] = True
    lengths = np.maximum(lengths, 1)
    salts = np.asarray([salt(role) for parts in rows for role, _ in parts], dtype=np.uint64)
    hashed = mixed(_words_at_every_byte(flat.tobytes())[inside] ^ np.repeat(salts, lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return hashed, starts[np.cumsum([0, *map(len, rows)])]


def _normal(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of every text with one blank between them and eight zeros behind the last, as bytes, and
    (n,) how many bytes each text has without those. All texts at once: bytes in one array."""
    plain = [text.replace("\0", " ") if text.isascii() else " ".join(words_of(text)) for text in texts]
    joined = _GAP.join([*plain, ""]).encode("utf-8", "replace")
    flat = np.frombuffer(joined.translate(_PLAIN), dtype=np.uint8)
    # A blank is kept behind a word, so that none begins a text and none follows another; then none ends one.
    keep = flat != BLANK
    keep[1:] |= flat[:-1] > BLANK
    flat = flat[keep]
    keep = np.ones(len(flat), dtype=bool)
    keep[:-1] = (flat[:-1] != BLANK) | (flat[1:] != 0)
    flat = flat[keep]
    ends = np.flatnonzero(flat == 0)[::WINDOW]
    return flat, np.diff(ends, prepend=-WINDOW) - WINDOW


def _words_at_every_byte(data: bytes) -> Hashes:
    """(len(data),) the little-endian 64-bit word that begins at each byte."""
    size = len(data)
    padded = data + b"\0" * (2 * WINDOW)
    out = np.empty(size + WINDOW, dtype=np.uint64)
    count = (size + WINDOW) // WINDOW
    for shift in range(WINDOW):
        found = np.frombuffer(padded, dtype="<u8", count=count, offset=shift)
        out[shift::WINDOW][: len(found)] = found[: len(out[shift::WINDOW])]
    return out[:size]


def window_sets(rows: Sequence[Sequence[RowPart]]) -> list[Hashes]:
    """The sorted set of each row's windows; of many rows at once, several times as fast as one by one."""
    hashed, starts = windows(rows)
    for start, end in pairwise(starts.tolist()):
        hashed[start:end].sort()
    new = np.ones(len(hashed), dtype=bool)
    np.not_equal(hashed[1:], hashed[:-1], out=new[1:])
    new[starts[starts < len(hashed)]] = True
    found = hashed[new]
    ends = np.concatenate([[0], np.cumsum(new)])[starts]
    return [found[start:end] for start, end in pairwise(ends.tolist())]


def window_set(parts: Sequence[RowPart]) -> Hashes:
    """The sorted set of a row's windows."""
    return window_sets([parts])[0]


def jaccard(one: Hashes, other: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted sets."""
    both = np.concatenate([one, other])
    both.sort(kind="stable")  # merges the two runs
    shared = int((both[1:] == both[:-1]).sum())
    return shared / (len(both) - shared) if len(both) else 1.0


# --- runs of words ------------------------------------------------------------------------------


def grams(texts: Sequence[Sequence[str]], count: int) -> tuple[Hashes, np.ndarray]:
    """Hashes of every run of `count` words, and the index of the text each lies in.

    A polynomial over bytes modulo 2^64 from prefix sums; two given runs share a value with odds of
    about 2^-64 where nobody makes them collide.
    """
    joined = [(" ".join(words) + " " if words else "").encode("utf-8", "replace") for words in texts]
    flat = np.frombuffer(b"".join(joined), dtype=np.uint8)
    if not len(flat):
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    powers, inverses = _powers(len(flat))
    with np.errstate(over="ignore"):
        prefix = np.concatenate([[np.uint64(0)], np.cumsum(mixed(flat.astype(np.uint64)) * powers)])
    ends = np.flatnonzero(flat == BLANK) + 1  # each word with the blank behind it
    starts = np.concatenate([[0], ends[:-1]])
    text_of = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
    if len(ends) < count:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    first, last = starts[: len(ends) - count + 1], ends[count - 1 :]
    whole = text_of[: len(first)] == text_of[count - 1 :]
    first, last, owner = first[whole], last[whole], text_of[: len(whole)][whole]
    return mixed((prefix[last] - prefix[first]) * inverses[first]), owner


_POWERS: dict[str, np.ndarray] = {}


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """The base and its inverse to the powers 0 to size - 1, modulo 2^64."""
    if len(_POWERS.get("up", ())) < size:
        for name, base in (("up", _BASE), ("down", _INVERSE)):
            steps = np.full(max(size, 1 << 16), base, dtype=np.uint64)
            steps[0] = 1
            _POWERS[name] = np.cumprod(steps)
    return _POWERS["up"][:size], _POWERS["down"][:size]


def whole_hash(words: Sequence[str]) -> int:
    """The hash of a whole text's words."""
    found, _ = grams([words], len(words)) if words else (np.zeros(1, dtype=np.uint64), None)
    return int(found[0])
