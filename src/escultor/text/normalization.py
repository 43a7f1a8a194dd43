"""The normal form of a text, in which texts are compared: its words, and what else tells two texts apart.

Case, white space, the Unicode form and punctuation mark nothing. Scripts that write no blanks between words
(Chinese, Japanese, Thai, Khmer, Lao, Burmese, …) are compared by characters, each with its combining marks.
Words alone decide how similar two texts are; numbers, operators, signs, comparisons, currency and emoji
then decide whether similar texts say the same (`contradict`). No normal form is stored: what is held out is
kept as it was written, and brought into this form when it is read."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

CHARACTERS_PER_WORD = 2  # of a script without blanks, about: Chinese 1.6, Japanese 2 to 3, Thai 3

# Operators of ASCII. A hyphen between letters joins words, and an exclamation mark is an operator only
# before
# what it negates.
_ASCII_SYMBOL = r"[#$%&*+/<=>@\\^|~]|(?<![^\W\d_])-|-(?![^\W\d_])|!(?==)|(?<![\w)!])!(?=[\w(])"
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")
# Before NFKC, which would make 102 of 10²; and minus signs, which it leaves as they are.
_BEFORE_NFKC = str.maketrans(
    {c: f"^{n}" for n, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")} | {"\u2212": "-", "\ufe63": "-"}
)
_MARKDOWN = re.compile(r"^[ \t]*(?:[-*+]|#{1,6})[ \t]|(?<![\w*])\*\*(?=\w)|(?<=[\w.:!?])\*\*(?![\w*])", re.M)

# Blocks of scripts that write no blanks between words.
_SCRIPTS_WITHOUT_BLANKS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese, Shan
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\ua980-\ua9df"  # Tai Le, Tai Lue, Tai Tham, Javanese
    "\u3005-\u3007\u3041-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48f\uf900-\ufaff\U00020000-\U0003ffff"  # Han, Yi
)
_EMOJI = "\U0001f000-\U0001faff"  # with the modifiers of skin tones
_DRAWING = ("\ufe0e", "\ufe0f", "\u200d")  # how an emoji is drawn, not which


@cache
def character_ranges(*categories: str) -> str:
    """The inside of a character class of a pattern: the Unicode categories in the basic plane, ASCII
    aside."""
    inside = [
        code
        for code in range(128, 1 << 16)
        if unicodedata.category(chr(code)) in categories and chr(code) not in _DRAWING
    ]
    starts = [i for i, code in enumerate(inside) if i == 0 or code != inside[i - 1] + 1]
    return "".join(f"\\u{inside[a]:04x}-\\u{inside[b - 1]:04x}" for a, b in pairwise([*starts, len(inside)]))


@cache
def word_pattern() -> re.Pattern[str]:
    """Words, and the characters of scripts without blanks, each with its combining marks."""
    marks = character_ranges("Mn", "Mc", "Me")
    character = rf"(?=\w)[{_SCRIPTS_WITHOUT_BLANKS}][{marks}]*"
    return re.compile(rf"{character}|(?:[^\W{_SCRIPTS_WITHOUT_BLANKS}]|[{marks}])+")


@cache
def symbol_pattern() -> re.Pattern[str]:
    """One operator, sign, currency or emoji."""
    return re.compile(f"{_ASCII_SYMBOL}|[{character_ranges('Sm', 'Sc', 'So')}{_EMOJI}]")


@cache
def character_pattern() -> re.Pattern[str]:
    """One character of a script without blanks."""
    return re.compile(rf"(?=\w)[{_SCRIPTS_WITHOUT_BLANKS}]")


def normalized(text: str) -> str:
    """NFKC, case folded, runs of white space as one blank: equal for texts that are the same mark for
    mark."""
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    """NFKC with powers and digits in ASCII, case folded."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_BEFORE_NFKC))
        text = _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.digit(match[0])), text)
    return text.casefold()


def words_of(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation and symbols; of scripts without blanks, the
    characters."""
    folded = _folded(text)
    return (_ASCII_WORD if folded.isascii() else word_pattern()).findall(folded)


def has_characters(words: Sequence[str]) -> bool:
    """Whether half of a text's words or more are characters of a script without blanks."""
    starts = "".join([word[0] for word in words])
    return not starts.isascii() and 2 * len(character_pattern().findall(starts)) >= len(words)


def word_count(text: str) -> int:
    """The words of a text: what stands between blanks, and every two characters of a script without
    them."""
    if text.isascii():
        return len(text.split())
    rest, characters = character_pattern().subn(" ", text)
    if not characters:
        return len(text.split())
    words = sum(1 for part in rest.split() if any(c.isalnum() for c in part))
    return words + -(-characters // CHARACTERS_PER_WORD)


# --- what tells similar texts apart --------------------------------------------------------------


@cache
def _token_pattern() -> re.Pattern[str]:
    return re.compile(f"({word_pattern().pattern})|{symbol_pattern().pattern}")


def words_with_symbols(text: str) -> list[str]:
    """The words of a text as in `words_of`, each followed by the symbols after it: equal for texts that
    differ in punctuation, blanks, bullets and bold type alone."""
    words: list[str] = []
    before = ""  # symbols before the first word
    for token in _token_pattern().finditer(_folded(_MARKDOWN.sub("", text))):
        if token[1]:
            words.append(before + token[1])
            before = ""
        elif words:
            words[-1] += token[0]
        else:
            before += token[0]
    return [*words, before] if before else words


# Letters of Greek and Cyrillic that are drawn as Latin ones, after case folding.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһԛԝвкмнтοαρνυικτχε",
    "aeopcyxijsdhqwbkmhtoapvuiktxe",
)
_STRAY_MARK = re.compile("[\u0300-\u036f]")  # what NFC composes with no letter


def question_key(text: str) -> str:
    """The words and symbols of a text as they look: equal for questions that differ in punctuation, blanks,
    invisible characters, stray accents, and letters of other scripts that are drawn alike."""
    if not text.isascii():
        visible = (c for c in text if unicodedata.category(c) != "Cf" and not _is_variation(c))
        text = _STRAY_MARK.sub("", unicodedata.normalize("NFC", "".join(visible)))
        text = text.casefold().translate(_LOOKALIKES)
    return " ".join(words_with_symbols(text)) or normalized(text)


def _is_variation(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def symbol_counts(text: str) -> Counter[str]:
    """How often each number and symbol occurs in a text, bullets and bold type aside."""
    tokens = (match[0] for match in _token_pattern().finditer(_folded(_MARKDOWN.sub("", text))))
    return Counter(token for token in tokens if not token[0].isalpha() or any(map(str.isdigit, token)))


# A text with one of these words more says the opposite; "t" is what is left of "n't".
_NEGATIVE_WORDS = (
    "no not never cannot t não nunca jamais ne pas nein nicht kein keine keinen nie non 不 没 沒 無 无 未"
)
_NEGATIONS = frozenset(_NEGATIVE_WORDS.split())
_NEGATIVE_ENDINGS = ("ない", "ません", "ไม่", "않", "없", "아니")
_CONSTANTS = frozenset(("true", "false", "none", "null", "yes", "sim", "sí", "oui", "ja"))
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_IDLE_MARK = re.compile(r"!(?![\w(=])|(?<=[\w)!])!(?!=)")
_PREFIXED = re.compile(r"(?<![\w)\]~!-])[-~!]+[^\W\d_]\w*")
_SUFFIXED = re.compile(r"(?<=[^\W\d_])[+#]+(?!\w)")
_ASCII_RUN = re.compile(r"[\d#$%&*+/<=>@\\^|~!-][\d#$%&*+/<=>@\\^|~!.,:-]*", re.ASCII)


@cache
def _run_pattern() -> re.Pattern[str]:
    symbols = rf"\d#$%&*+/<=>@\\^|~!{character_ranges('Sm', 'Sc', 'So')}{_EMOJI}"
    return re.compile(rf"[{symbols}-][{symbols}.,:-]*")


def contradict(some: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> bool:
    """Whether two rows, given as texts by role, say different things in numbers and symbols, however
    similar their words are: each has a number, symbol or constant where the other has another one (`17 +
    25` and `17 * 25`, 😀 and 😡), or one has a negation, a sign or an option that the other lacks (`not`,
    `-x`, `!ok`, `--force`, `C++`). What only one of them adds otherwise, such as a page number, contradicts
    nothing."""
    ours, theirs = _other_words(some, others), _other_words(others, some)
    if not ours and not theirs:
        return False
    one, other = _Symbols(ours), _Symbols(theirs)
    if one.strict != other.strict:
        return True
    # They differ in blanks at most where all symbols in a row are the same.
    return one.joined != other.joined and bool(one.runs - other.runs) and bool(other.runs - one.runs)


def _other_words(row: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What stands between blanks in a row and not in the other one, by role: of similar rows a few words."""
    theirs: dict[str, str] = {}
    for role, text in other:
        theirs[role] = f"{theirs[role]} {text}" if role in theirs else text
    found = []
    for role in dict.fromkeys(role for role, _ in row):
        mine = " ".join([text for each, text in row if each == role])
        if mine != theirs.get(role):
            rest = Counter(_folded(mine).split())
            rest.subtract(_folded(theirs.get(role, "")).split())
            found += [(role, word) for word, count in rest.items() for _ in range(count)]
    return found


class _Symbols:
    """The runs of symbols in some words by role, those of which one more says something else, and all in a
    row."""

    def __init__(self, words: Sequence[tuple[str, str]]):
        text = " ".join([word for _, word in words])
        run = _ASCII_RUN if text.isascii() else _run_pattern()
        self.runs: Counter[tuple[str, str]] = Counter()
        self.strict: Counter[tuple[str, str]] = Counter()
        for role, word in words:
            plain = _IDLE_MARK.sub(" ", _HYPHEN.sub(" ", word))
            found = [each.rstrip(".,:") for each in run.findall(plain)]
            parts = words_of(word)
            self.runs.update((role, each) for each in (*found, *(w for w in parts if w in _CONSTANTS)))
            strict = (
                [w for w in parts if w in _NEGATIONS] + _PREFIXED.findall(plain) + _SUFFIXED.findall(plain)
            )
            if not word.isascii():
                strict += [ending for ending in _NEGATIVE_ENDINGS for _ in range(word.count(ending))]
            self.strict.update((role, each) for each in strict)
        self.joined = Counter(c for (_, each), n in self.runs.items() for c in each * n)
