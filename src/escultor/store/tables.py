"""The tables of the log. `migrations` makes them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, Table, Text, UniqueConstraint

SEQ = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

_LOG_COLUMNS = (
    Column("seq", SEQ, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("target", Text),
    Column("subject", Text),
    Column("body", Text, nullable=False),
)
_LOG_INDICES = (
    UniqueConstraint("kind", "id", name="uq_log_kind_id"),
    Index("ix_log_kind_seq", "kind", "seq"),
    Index("ix_log_target_seq", "target", "seq"),
    Index("ix_log_subject_seq", "subject", "seq"),
)
log = Table("log", metadata, *_LOG_COLUMNS, *_LOG_INDICES, sqlite_autoincrement=True)

# What an entry is about besides its target: each answer of a choice, each record that it shares with others.
mention = Table(
    "mention",
    metadata,
    Column("about", Text, primary_key=True),
    Column("seq", SEQ, primary_key=True, autoincrement=False),
    Index("ix_mention_seq", "seq"),
)

# What each key has spent on each day since the epoch (UTC); interactions add to it as they are recorded.
_SPENDING_COLUMNS = (
    Column("key", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("tokens", BigInteger, nullable=False),
    Column("usd", Double, nullable=False),
)
spending = Table("spending", metadata, *_SPENDING_COLUMNS)

# Hashes of the ids that are erased, and by which erasure.
erased = Table(
    "erased",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("erasure", Text, nullable=False),
    Index("ix_erased_erasure", "erasure"),
)

# Who works on what, and until when (seconds since the epoch, by the database's clock).
_LEASE_COLUMNS = (
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)
lease = Table("lease", metadata, *_LEASE_COLUMNS)
