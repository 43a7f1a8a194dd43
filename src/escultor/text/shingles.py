"""Texts as hashes: 8-byte shingles and n-grams of their words; the same on every machine."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from escultor.text.normalization import words_of

Hashes = np.ndarray  # (n,) uint64
RowPart = tuple[str, str]  # role, text
BLANK = 32
SHINGLE_BYTES = 8  # exactly one 64-bit word
# The normal form of each byte: letters fold to lower case, everything that is not part of a word becomes a
# blank. Words outside ASCII are folded before; NUL separates texts.
_KEPT = re.compile(r"[\w\0]", re.ASCII)
_PLAIN = bytes(c if c > 127 else ord(chr(c).lower()) if _KEPT.match(chr(c)) else BLANK for c in range(256))
_GAP = "\0" * SHINGLE_BYTES
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))


def mix64(values: Hashes) -> Hashes:
    """Every value scattered over 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = values + _BASE
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def _salt(role: str) -> np.uint64:
    """A number that separates the shingles of one role from those of another."""
    return np.uint64(zlib.crc32(role.encode()) * 0x9E3779B1)


# --- shingles -----------------------------------------------------------------------------------


def shingles(rows: Sequence[Sequence[RowPart]]) -> tuple[Hashes, np.ndarray]:
    """Hashes of the 8-byte shingles of each row's words, salted with the role of their text, and (n + 1,)
    where each row begins. Every text ends in zeros, so that the shortest one has a shingle too."""
    flat, lengths = _join_words([text for parts in rows for _, text in parts])
    inside = flat != 0
    ends = np.cumsum(lengths + SHINGLE_BYTES) - SHINGLE_BYTES
    inside[ends[lengths == 0]] = True
    lengths = np.maximum(lengths, 1)
    salts = np.asarray([_salt(role) for parts in rows for role, _ in parts], dtype=np.uint64)
    hashed = mix64(_words_at_every_byte(flat.tobytes())[inside] ^ np.repeat(salts, lengths))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return hashed, starts[np.cumsum([0, *map(len, rows)])]


def _join_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of every text with one blank between them and eight zeros after the last, as one array of
    bytes, and (n,) how many bytes each text has without those zeros."""
    plain = [text.replace("\0", " ") if text.isascii() else " ".join(words_of(text)) for text in texts]
    joined = _GAP.join([*plain, ""]).encode("utf-8", "replace")
    flat = np.frombuffer(joined.translate(_PLAIN), dtype=np.uint8)
    # Keep a blank only after a word (none at the start of a text, no two in a row), then none at its end.
    keep = flat != BLANK
    keep[1:] |= flat[:-1] > BLANK
    flat = flat[keep]
    keep = np.ones(len(flat), dtype=bool)
    keep[:-1] = (flat[:-1] != BLANK) | (flat[1:] != 0)
    flat = flat[keep]
    ends = np.flatnonzero(flat == 0)[::SHINGLE_BYTES]
    return flat, np.diff(ends, prepend=-SHINGLE_BYTES) - SHINGLE_BYTES


def _words_at_every_byte(data: bytes) -> Hashes:
    """(len(data),) the little-endian 64-bit word that begins at each byte."""
    size = len(data)
    padded = data + b"\0" * (2 * SHINGLE_BYTES)
    out = np.empty(size + SHINGLE_BYTES, dtype=np.uint64)
    count = (size + SHINGLE_BYTES) // SHINGLE_BYTES
    for shift in range(SHINGLE_BYTES):
        words = np.frombuffer(padded, dtype="<u8", count=count, offset=shift)
        out[shift::SHINGLE_BYTES][: len(words)] = words[: len(out[shift::SHINGLE_BYTES])]
    return out[:size]


def shingle_sets(rows: Sequence[Sequence[RowPart]]) -> list[Hashes]:
    """The sorted set of each row's shingles; for many rows at once several times as fast as one by one."""
    hashed, starts = shingles(rows)
    for start, end in pairwise(starts.tolist()):
        hashed[start:end].sort()
    is_new = np.ones(len(hashed), dtype=bool)
    np.not_equal(hashed[1:], hashed[:-1], out=is_new[1:])
    is_new[starts[starts < len(hashed)]] = True
    unique = hashed[is_new]
    ends = np.concatenate([[0], np.cumsum(is_new)])[starts]
    return [unique[start:end] for start, end in pairwise(ends.tolist())]


def shingle_set(parts: Sequence[RowPart]) -> Hashes:
    """The sorted set of one row's shingles."""
    return shingle_sets([parts])[0]


def jaccard(a: Hashes, b: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted sets."""
    both = np.concatenate([a, b])
    both.sort(kind="stable")  # merges the two runs
    shared = int((both[1:] == both[:-1]).sum())
    return shared / (len(both) - shared) if len(both) else 1.0


# --- n-grams ------------------------------------------------------------------------------------


def ngram_hashes(texts: Sequence[Sequence[str]], count: int) -> tuple[Hashes, np.ndarray]:
    """Hashes of every n-gram of `count` words, and the index of the text each one lies in.

    A polynomial hash over bytes modulo 2^64 from prefix sums; two given n-grams share a value with a
    probability of about 2^-64 unless somebody constructs a collision.
    """
    joined = [(" ".join(words) + " " if words else "").encode("utf-8", "replace") for words in texts]
    flat = np.frombuffer(b"".join(joined), dtype=np.uint8)
    ends = np.flatnonzero(flat == BLANK) + 1  # each word with the blank after it
    if len(ends) < count or not len(flat):
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    powers, inverses = _powers(len(flat))
    with np.errstate(over="ignore"):
        prefix = np.concatenate([[np.uint64(0)], np.cumsum(mix64(flat.astype(np.uint64)) * powers)])
    starts = np.concatenate([[0], ends[:-1]])
    text_of = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
    first, last = starts[: len(ends) - count + 1], ends[count - 1 :]
    is_inside = text_of[: len(first)] == text_of[count - 1 :]  # of one text
    first, last, owner = first[is_inside], last[is_inside], text_of[: len(is_inside)][is_inside]
    return mix64((prefix[last] - prefix[first]) * inverses[first]), owner


_POWERS: dict[str, np.ndarray] = {}


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """The base and its inverse to the powers 0 to size - 1, modulo 2^64."""
    if len(_POWERS.get("up", ())) < size:
        for name, base in (("up", _BASE), ("down", _INVERSE)):
            factors = np.full(max(size, 1 << 16), base, dtype=np.uint64)
            factors[0] = 1
            _POWERS[name] = np.cumprod(factors)
    return _POWERS["up"][:size], _POWERS["down"][:size]


def text_hash(words: Sequence[str]) -> int:
    """The hash of all words of a text as one n-gram; 0 for no words."""
    return int(ngram_hashes([words], len(words))[0][0]) if words else 0
