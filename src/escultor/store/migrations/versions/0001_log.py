"""The log: one append-only table."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    columns = (
        sa.Column("seq", seq, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
    )
    unique = sa.UniqueConstraint("kind", "id", name="uq_log_kind_id")
    op.create_table("log", *columns, unique, sqlite_autoincrement=True)
    op.create_index("ix_log_kind_seq", "log", ["kind", "seq"])
    op.create_index("ix_log_target", "log", ["target"])
    op.create_index("ix_log_subject", "log", ["subject"])
