"""What reviewers decided, applied: a new version of the dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

from escultor.datasets.review import decisions, rejected, reviewed
from escultor.datasets.rows import CurationRow, write_line
from escultor.datasets.versions import load_card, read_rows, save_version
from escultor.errors import InputError
from escultor.store import Store, files
from escultor.types import DatasetVersion, Document, Pair, Review


def finished(store: Store, version: DatasetVersion) -> tuple[DatasetVersion, dict[str, int]]:
    """The version without rows that a reviewer rejected, and with the last edit of the others.

    Raises InputError where nothing was rejected or edited.
    """
    found = decisions(store, version.hash)
    out = rejected(dict(found))
    edits = {
        row: max((r for r in said if r.decision == "edit"), key=lambda r: (r.time, r.id), default=None)
        for row, said in found.items()
    }
    counts: Counter[str] = Counter()
    with files.temporary(store.root / "partial") as path, files.explained("write", path):
        with path.open("wb") as file:
            for row in read_rows(store, version):
                if row.item.id in out:
                    counts["review: rejected"] += 1
                    continue
                edit = edits.get(row.item.id)
                counts["review: edited"] += edit is not None
                file.write(write_line(row if edit is None else edited(row, edit)))
        if not counts.total():
            raise InputError("no row was rejected or edited", f"{len(found)} decisions", "one at least")
        card = load_card(store, version)
        review = {"review_before": asdict(reviewed(found)) | {"of": version.rows}}
        rows = version.rows - counts["review: rejected"]
        made = save_version(
            store,
            version.name,
            version.kind,
            path,
            store.blobs.file(version.held_out) if version.held_out else None,
            version.counts | dict(counts),
            lambda hash: card | review | {"hash": hash, "rows": rows, "reviewed_from": version.hash},
        )
    return made, dict(counts)


def edited(row: CurationRow, review: Review) -> CurationRow:
    """The row with the reviewer's text as what is learnt, and the review as one of its parents."""
    item = row.item
    origin = replace(item.origin, parents=(*item.origin.parents, review.id))
    if isinstance(item, Document):
        return replace(row, item=replace(item, text=review.text, origin=origin))
    if isinstance(item, Pair):
        return replace(row, item=replace(item, chosen=review.text, origin=origin))
    return replace(row, item=replace(item, response=review.text, origin=origin))
