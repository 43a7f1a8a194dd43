"""Present names for older records: kinds in the log, variants, keys and values in the bodies."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BATCH = 500  # entries held in memory at a time
KINDS = {  # of the entries that change: old name -> present name
    "opening": "pending",
    "release": "quarantine_override",
    "checkpoint": "checkpoint",
    "dataset": "dataset",
}
# Names of types under "_" in the bodies.
VARIANTS = {"Opening": "PendingInteraction", "Release": "QuarantineOverride"}


def upgrade() -> None:
    connection = op.get_bind()
    log = sa.table("log", *(sa.column(name) for name in ("seq", "kind", "body")))
    query = sa.select(log.c.seq, log.c.kind, log.c.body).order_by(log.c.seq).limit(BATCH)
    query = query.where(log.c.kind.in_(tuple(KINDS)))
    update = sa.update(log).where(log.c.seq == sa.bindparam("number"))
    update = update.values(kind=sa.bindparam("new_kind"), body=sa.bindparam("new_body"))
    after = 0
    while rows := connection.execute(query.where(log.c.seq > after)).all():
        renamed = [
            {"number": row.seq, "new_kind": KINDS[row.kind], "new_body": _renamed(row.kind, row.body)}
            for row in rows
        ]
        connection.execute(update, renamed)
        after = rows[-1].seq


def _renamed(kind: str, text: str) -> str:
    body: dict[str, Any] = json.loads(text)
    body["_"] = VARIANTS.get(body["_"], body["_"])
    if kind == "checkpoint":
        body = {"method" if key == "phase" else key: value for key, value in body.items()}
    if kind == "dataset" and body["kind"] == "judged":
        body["kind"] = "unpaired"
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
