"""Tokens and subjects: what they promise holds against changes, guesses, time and two processes at once."""

import json
import multiprocessing
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.errors import InputError, StoreError, TokenError
from escultor.serve.auth import FeedbackTokens, TokenGrant
from escultor.serve.subjects import MAX_NAME, SubjectHasher
from escultor.store.secrets import secret

KEY = bytes(range(32))
GRANT = TokenGrant("chatcmpl-1", "5" * 32, ("thumb", "remark"), 1000.0)
grants = st.builds(
    TokenGrant,
    st.text(max_size=40),
    st.text(max_size=40),
    st.lists(st.text(max_size=10), max_size=3).map(tuple),
    st.floats(1, 1e12),
)


@given(grants)
def test_a_token_gives_back_what_it_was_issued_for_and_is_fit_for_a_url(grant):
    token = FeedbackTokens(KEY).issue(grant)
    assert FeedbackTokens(KEY).read(token, grant.until - 1) == grant
    assert all(c.isascii() and (c.isalnum() or c in "-_.") for c in token)


@given(st.data())
def test_no_other_spelling_is_accepted(data):
    token = FeedbackTokens(KEY).issue(GRANT)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != token[at]))
    changed = data.draw(st.sampled_from([token[:at] + other + token[at + 1 :], token[:at], token + other]))
    with pytest.raises(TokenError):
        FeedbackTokens(KEY).read(changed, 0.0)


@pytest.mark.parametrize("token", ["", ".", "a.b", "a" * 5000 + ".b", "ä.b", "AA.AA.AA", "A.AAAA"])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(TokenError, match="remedy: take the token that came with the answer"):
        FeedbackTokens(KEY).read(token, 0.0)


def test_a_token_ends_and_knows_its_store():
    token = FeedbackTokens(KEY).issue(GRANT)
    with pytest.raises(TokenError, match="expired; got: 5 s ago"):
        FeedbackTokens(KEY).read(token, 1005.0)
    with pytest.raises(TokenError, match="not one of this store's"):
        FeedbackTokens(bytes(32)).read(token, 0.0)


# --- subjects ---------------------------------------------------------------------------------


def test_a_subject_is_one_per_name_and_store_and_tells_no_name(tmp_path):
    here, there = SubjectHasher.for_store(tmp_path / "a"), SubjectHasher.for_store(tmp_path / "b")
    assert here.subject("ann") == SubjectHasher.for_store(tmp_path / "a").subject("ann")
    assert len({here.subject("ann"), here.subject("bob"), there.subject("ann")}) == 3
    assert len(here.subject("ann")) == 32


def test_one_accent_written_in_two_ways_is_one_person_and_case_is_two():
    subjects = SubjectHasher(KEY)
    assert subjects.subject("Jose\u0301") == subjects.subject("Jos\u00e9") != subjects.subject("jos\u00e9")


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME + 1), "\ud800"])
def test_a_name_that_cannot_be_hashed_is_refused(name):
    with pytest.raises(InputError, match="a user's name"):
        SubjectHasher(KEY).subject(name)


# --- secrets ----------------------------------------------------------------------------------


def _draw(root: Path) -> bytes:
    return secret(root, "tokens")


def test_processes_that_ask_at_once_get_one_secret_for_its_owner_alone(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(_draw, [tmp_path / str(k // 8) for k in range(64)], chunksize=1)
    assert [len(set(found[k : k + 8])) for k in range(0, 64, 8)] == [1] * 8
    assert len(set(found)) == 8
    files = list((tmp_path / "0").iterdir())
    assert [file.name for file in files] == ["tokens.key"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_a_secret_that_others_may_read_or_that_is_damaged_is_refused(tmp_path):
    secret(tmp_path, "tokens")
    file = tmp_path / "tokens.key"
    file.chmod(0o640)
    with pytest.raises(StoreError, match="mode 640; allowed: mode 600; remedy: chmod 600"):
        secret(tmp_path, "tokens")
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(StoreError, match=r"damaged; got: 5 bytes; allowed: 32 bytes"):
        secret(tmp_path, "tokens")


def test_a_payload_says_what_was_granted_and_nothing_else():
    from base64 import urlsafe_b64decode

    payload = FeedbackTokens(KEY).issue(GRANT).split(".")[0]
    said = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert said == [GRANT.target, GRANT.subject, list(GRANT.names), GRANT.until]
