"""Choices are found by their answers; what was erased must not come back; targets and subjects in order."""

import json

import sqlalchemy as sa
from alembic import op

from escultor.ids import hash_value

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BATCH = 500
_seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "mention",
        sa.Column("about", sa.Text, primary_key=True),
        sa.Column("seq", _seq, primary_key=True, autoincrement=False),
    )
    op.create_index("ix_mention_seq", "mention", ["seq"])
    op.create_table(
        "erased",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("erasure", sa.Text, nullable=False),
    )
    op.create_index("ix_erased_erasure", "erased", ["erasure"])
    for column in ("target", "subject"):
        op.drop_index(f"ix_log_{column}", "log")
        op.create_index(f"ix_log_{column}_seq", "log", [column, "seq"])
    _file_choices(op.get_bind())


def _file_choices(connection: sa.Connection) -> None:
    """Give the choices that are there a target, and file them under each of their answers."""
    log = sa.table("log", *(sa.column(name) for name in ("seq", "kind", "target", "body")))
    mention = sa.table("mention", sa.column("about"), sa.column("seq"))
    query = sa.select(log.c.seq, log.c.body).where(log.c.kind == "feedback", log.c.target.is_(None))
    query = query.order_by(log.c.seq).limit(BATCH)
    after = 0
    while rows := connection.execute(query.where(log.c.seq > after)).all():
        for seq, body in rows:
            answers = json.loads(body)["shown_order"]
            # As `escultor.store.feedback.choice_target` did when this was written.
            target = f"choice-{hash_value(sorted(answers))}"
            connection.execute(sa.update(log).where(log.c.seq == seq).values(target=target))
            connection.execute(sa.insert(mention), [{"about": a, "seq": seq} for a in sorted(set(answers))])
        after = rows[-1].seq
