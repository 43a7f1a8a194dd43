"""Rows are found by the definitions of tools that they name; what each key spent on each day."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = 500


def upgrade() -> None:
    op.create_table(
        "spending",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("usd", sa.Double, nullable=False),
    )
    _mention_tools(op.get_bind())


def _mention_tools(connection: sa.Connection) -> None:
    """File the rows that are there under the definitions of tools that they name."""
    log = sa.table("log", *(sa.column(name) for name in ("seq", "kind", "body")))
    mention = sa.table("mention", sa.column("about"), sa.column("seq"))
    query = sa.select(log.c.seq, log.c.body).where(
        log.c.kind.in_(("interaction", "pending")), log.c.body.like('%"tools":"%')
    )
    query, after = query.order_by(log.c.seq).limit(BATCH), 0
    while rows := connection.execute(query.where(log.c.seq > after)).all():
        bodies = [(row.seq, json.loads(row.body)) for row in rows]
        named = [(seq, body.get("interaction", body).get("tools")) for seq, body in bodies]
        found = [{"about": f"#tools {tools}", "seq": seq} for seq, tools in named if tools]
        if found:
            connection.execute(sa.insert(mention), found)
        after = rows[-1].seq
