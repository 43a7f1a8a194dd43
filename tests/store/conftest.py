"""Stores for the tests: SQLite always, PostgreSQL where ESCULTOR_TEST_POSTGRES gives a url."""

import os
import secrets

import pytest

from escultor.store import open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The url of a store that does not exist yet."""
    if request.param == "sqlite":
        yield str(tmp_path / "store")
        return
    server = os.environ.get("ESCULTOR_TEST_POSTGRES")
    if not server:
        pytest.skip("ESCULTOR_TEST_POSTGRES gives no url of a PostgreSQL database")
    psycopg = pytest.importorskip("psycopg")
    schema = f"escultor_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def store(url, tmp_path):
    with open_store(url, blobs=tmp_path / "blobs") as opened:
        yield opened
