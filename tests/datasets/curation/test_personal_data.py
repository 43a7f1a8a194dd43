import random
import string

import pytest
from curate_rows import row, text
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import luhn

from escultor.config.curation import Curation
from escultor.datasets.personal_data import private, redacted
from escultor.datasets.recognisers.general import is_iban
from escultor.datasets.rows import Dropped, full_text

KINDS = {
    "email": [
        "ana.silva+x@mail.example.org",
        "a@b.co",
        "pat.o'neill@example.com",
        "JOHN_D@sub.domain.example.com",
    ],
    "phone": [
        "+44 20 7946 0958",
        "+351 912 345 678",
        "(415) 555-2671",
        "415-555-2671",
        "+1-415-555-2671",
        "+4915112345678",
        "+33 1 42 68 53 00",
        "+81 3 1234 5678",
        "+49.30.1234567",
        "+44 (0)20 7946 0958",
        "+44(0)20 7946 0958",
        "(+49) 30 123456",
        "0049 30 123456",
        "0044 (0)20 7946 0958",
        "00351 912 345 678",
        "0033-1-42-68-53-00",
        "(0049) 30 123456",
        "001 415 555 2671",
        "(415) 555 2671",
        "415.555.2671",
    ],
    "card": [
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "3782 822463 10005",
        "378282246310005",
        "6011111111111117",
        "2223003122003222",
        "30569309025904",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "GB82WEST12345698765432",
        "PT50000201231234567890154",
        "de89 3704 0044 0532 0130 00",
        "gb82west12345698765432",
        "AT61 1904 3002 3457 3201",
        "fr14-2004-1010-0505-0001-3m02-606",
        "NO93 8601 1117 947",
        "NL91\u00a0ABNA\u00a00417\u00a01643\u00a000",
    ],
    "ip": ["8.8.8.8", "151.101.1.69", "2001:4860:4860::8888"],
    "secret": [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a1B2c3D4" * 5,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzR8qLm2Vt5",
        "npm_" + "a1B2c3D4e5F6" * 3,
        "SG." + "a1B2c3D4e5F6" * 2 + ".x1Y2z3W4v5U6t7S8",
        "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    ],
}
HARMLESS = [
    "version 1.2.3.4.5 of 2024-05-17 at 10:30:59",
    "pi is 3.14159265358979323846 and 1234567890123456 is no card",
    "127.0.0.1 and 192.168.0.1 and 10.0.0.3 are private networks",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "user@localhost, @decorator, a @ b",
    "std::vector::iterator and 12:34:56",
    "she earned $12,345,678 in 2019-2020; 3 x 555 = 1665",
    "the_function_with_a_very_long_name_that_goes_on_and_on",
    "the profit was 2000000-400000=1600000",  # thirteen digits that pass Luhn's check
    "DE89 3704 0044 0532 0130 02 fails the check",
    "de89 3704 0044 0532 0130 02 fails it too",
    "DE74 3704 0044 0532 0130 passes it, and is too short",
    "tin 0000 0012 345 678, 00112233445566778899 and 0001 0002 0003 0004",
    "0010 2345 6789 and 001 of 002; 00:49:30.123456; 0.0049 30 123",
    "2 + 33 + 1 42 and +10.5 20 30",
    "backed up at 20170809091249 and 20010524124604",  # they pass it too
    "AcousticTokenizerConv1dPaddingCacheForVoices and papers/2007/Graph_Connectivity_Revised",
    "the image logo@2x.png of git@host.example.org:group/project.git",
]


def found_in(said):
    """Kind and text of everything private."""
    found = []
    redacted(said, found)
    return found


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, values in KINDS.items() for v in values])
def test_every_kind_is_found_inside_a_text(kind, value):
    for said in (value, f"write to {value} today", f"order 12 {value}", f"({value})", f"see:\n{value}\n"):
        assert (kind, value) in found_in(said), said


@pytest.mark.parametrize("said", HARMLESS)
def test_what_only_looks_private_stays(said):
    assert found_in(said) == []


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_what_was_redacted_once_stays_as_it_is(said):
    once = redacted(said)
    assert redacted(once) == once


def test_of_random_tokens_nearly_all_are_known():
    draw = random.Random(0)
    for length, least in ((32, 0.95), (40, 0.99), (64, 0.999)):
        made = ["".join(draw.choices(string.ascii_letters + string.digits, k=length)) for _ in range(3000)]
        assert sum(redacted(token) == "[SECRET]" for token in made) >= least * len(made)


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_luhn_finds_every_single_wrong_digit(digits):
    known = "".join(map(str, digits))
    right = next(known + str(c) for c in range(10) if luhn.is_valid(known + str(c)))
    for at in range(len(right)):
        for other in string.digits.replace(right[at], ""):
            assert not luhn.is_valid(right[:at] + other + right[at + 1 :])


def test_an_iban_with_two_digits_swapped_is_none():
    value = KINDS["iban"][1]
    assert is_iban(value)
    swaps = [
        value[:i] + value[i + 1] + value[i] + value[i + 2 :] for i in range(8, 20) if value[i] != value[i + 1]
    ]
    assert not any(map(is_iban, swaps))


def test_kinds_are_redacted_dropped_or_kept_as_the_settings_say():
    said = row(f"{text(1)} Mail ana@mail.example.org or call +44 20 7946 0958.")
    found = private(said, Curation(), None)
    assert not isinstance(found, Dropped)
    assert "[EMAIL]" in full_text(found.item)
    assert "[PHONE]" in full_text(found.item)
    assert found.notes == ("email redacted", "phone redacted")
    dropped = private(said, Curation.model_validate({"private": {"email": "drop"}}), None)
    assert dropped == Dropped("holds email")
    kept = private(said, Curation.model_validate({"private": {"email": "keep", "phone": "keep"}}), None)
    assert not isinstance(kept, Dropped)
    assert kept.item == said.item
    assert private(row(text(2)), Curation(), None) == row(text(2))


def test_hostile_texts_take_no_more_than_a_moment():
    draw = random.Random(0)
    for unit in ("1", "1 ", "a@", "a.", "+1 ", "(1", "AA11", "0:", "::", "eyJa.", "A1b" * 3):
        redacted(unit * 20_000)
    redacted("".join(draw.choice("0123456789 -+().@:aA") for _ in range(100_000)))
