"""Seconds until a gateway in front of an upstream listens, over an empty store and over large ones, and the
processor time that it takes to start and stop.

    python bench/start_big_store.py [--rows 1000000 10000000] [--folder FOLDER]

The rows (for each answer the pending record of its stream and a thumb, of 50,000 people) are written by SQL,
past the library; a store that the folder has from an earlier run is used again. About 1.3 GB for a million
rows. One JSON object last.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from escultor.serve.in_flight import draft_interaction
from escultor.store import open_store, registry
from escultor.store.appending import log_row
from escultor.store.feedback import THUMB
from escultor.types import Message, PendingInteraction, Rating, Role, Sampling

BEGIN, STEP_S, PEOPLE = 1_700_000_000.0, 2.0, 50_000
COLUMNS = ("kind", "id", "time", "target", "subject", "body")
TEXT = "Please summarise the yearly report of our department for the board, in three sentences. " * 2


def fill(folder: Path, rows: int) -> None:
    with open_store(str(folder)) as store:
        store.log.append(registry.deployment_for("the first", "v1", None, now=BEGIN - 1))
    connection = sqlite3.connect(folder / "log.db")
    # Without a journal: its copy of the pages would take as much room again.
    connection.executescript("pragma journal_mode=delete; pragma journal_mode=off; pragma synchronous=off")
    # Indexes are built at the end: a row at a time they are written all over once they outgrow the cache.
    of_log = "from sqlite_master where type = 'index' and tbl_name = 'log' and sql is not null"
    indexes = connection.execute(f"select name, sql {of_log}").fetchall()
    names = ", ".join(f":{name}" for name in COLUMNS)
    with connection:
        for name, _ in indexes:
            connection.execute(f"drop index {name}")
        connection.executemany(f"insert into log ({', '.join(COLUMNS)}) values ({names})", rows_of(rows))
        for _, sql in indexes:
            connection.execute(sql)
    connection.close()
    os.sync()  # else the first start waits for the disk


def rows_of(count: int) -> Iterator[dict[str, Any]]:
    """Rows as the library encodes one of each kind, with other ids, times and people."""
    messages = (Message(Role.USER, TEXT),)
    drafted = draft_interaction(
        messages, id="ID", subject="WHO", version="v1", sampling=Sampling(), skill="chat"
    )
    done = replace(drafted, time=12345.0, answer=TEXT, finish_reason="stop")
    pending, answer = log_row(PendingInteraction("host/1/x", 12345.0, done)), log_row(done)
    thumb = log_row(Rating("fb-ID", 12345.0, "ID", "WHO", name=THUMB, value=True))
    for n in range(count):
        kept = (pending, answer, thumb)[n % 3]
        id = f"chatcmpl-{n // 3:024x}"
        row = {name: kept[name] for name in COLUMNS}
        row |= {"id": kept["id"].replace("ID", id), "time": BEGIN + n * STEP_S}
        row["subject"] = f"{n * 7919 % PEOPLE:032x}"
        row["target"] = id if n % 3 == 2 else row["target"]
        body = kept["body"].replace("ID", id).replace("WHO", row["subject"])
        yield row | {"body": body.replace("12345.0", str(row["time"]))}


def seconds_to_start(folder: Path) -> tuple[float, float]:
    """From the start of the process until it listens, and its processor time until it has stopped."""
    words = [sys.executable, "-m", "escultor", "serve", "--port", "0", "--store", str(folder)]
    words += ["--upstream", "http://127.0.0.1:9/v1", "--upstream-model", "m"]
    began, seconds, before = time.perf_counter(), math.nan, os.times()
    with subprocess.Popen(words, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if re.search(r"http://127\.0\.0\.1:\d+", line):
                    seconds = time.perf_counter() - began
                    break
            else:
                raise RuntimeError("the gateway did not start")
        finally:
            server.terminate()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "big-stores")
    asked = parser.parse_args()
    found = {}
    for rows in (0, *asked.rows):
        folder = asked.folder / str(rows)
        if not (folder / "log.db").exists():
            folder.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            fill(folder, rows)
            print(f"{rows:,} rows were filled in {time.perf_counter() - began:.0f} s", flush=True)
        measured = [[round(value, 2) for value in seconds_to_start(folder)] for _ in range(3)]
        size = round((folder / "log.db").stat().st_size / 1e9, 2)
        found[str(rows)] = {"seconds_and_processor_seconds": measured, "gb": size}
        print(f"{rows:,} rows: {measured}", flush=True)
    print(json.dumps({"stores": found, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
