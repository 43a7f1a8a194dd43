"""For all tests: one thread, no network, and warnings of others that are no fault of ours."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import secrets
from collections.abc import Iterator

import postgres
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path):
    """A store of this test alone."""
    from escultor.store import open_store

    with open_store(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The url of a PostgreSQL server: ESCULTOR_TEST_POSTGRES, or one started for these tests."""
    if given := os.environ.get("ESCULTOR_TEST_POSTGRES"):
        yield given
    elif postgres.binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    else:
        with postgres.server(*postgres.FAST) as url:
            yield url


@pytest.fixture
def postgres_url(postgres_server) -> Iterator[str]:
    """The url of a store of this test alone: an empty schema on the server, dropped in the end."""
    psycopg = pytest.importorskip("psycopg")
    schema = f"escultor_test_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            yield f"{postgres_server}{'&' if '?' in postgres_server else '?'}options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
