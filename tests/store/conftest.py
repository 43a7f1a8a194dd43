"""Stores for the tests, on SQLite and on PostgreSQL: skipped only where PostgreSQL is not installed."""

import pytest

from escultor.store import open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The url of a store that does not exist yet."""
    return str(tmp_path / "store") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url, tmp_path):
    with open_store(url, blobs=tmp_path / "blobs") as opened:
        yield opened
