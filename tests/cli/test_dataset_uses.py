"""Every maker of dataset versions against every user of them: a version has one shape whoever made it."""

import json

import pytest
from cli_rows import jsonl
from test_judging import served_pairs

from escultor.cycle import steps
from escultor.datasets.review import record_review
from escultor.datasets.rows import CurationRow, write_line
from escultor.datasets.versions import find_version, read_rows
from escultor.store import open_store
from escultor.types import DatasetVersion, Example, Message, Origin, Pair, Role, UnpairedExample

CURATED = (
    *("--set", "curation.workers=1"),
    *("--set", "curation.language.keep=[]"),
    *("--set", "curation.steps=[exact]"),
)
SHORT = tuple(
    word
    for method in ("sft", "dpo", "kto")
    for word in ("--set", f"{method}.max_steps=1", "--set", f"{method}.batch_size=2")
)
METHOD = {"example": "sft", "pair": "dpo", "unpaired": "kto"}


def rows_of(kind, count=6):
    for i in range(count):
        row = {"prompt": f"cat {i}", "completion": f"dog {i}"}
        if kind == "pair":
            row = {"prompt": f"cat {i}", "chosen": f"dog {i}", "rejected": "bird"}
        yield row | ({"label": bool(i % 2)} if kind == "unpaired" else {})


def made_by_import(cli, kind):
    jsonl(cli.folder / "rows.jsonl", *rows_of(kind))
    return cli("data", "import", "rows.jsonl", "--name", "made", "--json")


def made_by_curate(cli, kind):
    jsonl(cli.folder / "rows.jsonl", *rows_of(kind))
    return cli("data", "curate", "rows.jsonl", "--out", "made", *CURATED, "--json")


def made_by_balance(cli, kind):
    jsonl(cli.folder / "rows.jsonl", *(row | {"labels": {"domain": "art"}} for row in rows_of(kind)))
    steps = ("--set", "curation.steps=[exact,balance]")
    return cli("data", "curate", "rows.jsonl", "--out", "made", *CURATED[:4], *steps, "--json")


def made_by_review(cli, kind):
    made_by_curate(cli, kind)
    with open_store("escultor-store") as store:
        version = find_version(store, "made")
        row = next(read_rows(store, version))
        record_review(
            store, version.hash, row.item.id, reviewer="a", decision="reject", order="uniform", reason="x"
        )
    return cli("data", "review", "made", "--finish", "--json")


def made_by_cycle(cli, kind):
    """As a cycle run records what it trained on, resampled pairs among it."""
    prompt = [(Message(Role.USER, f"cat {i}"),) for i in range(6)]
    origin = Origin(("chat-1",), "resampled/1")
    with open_store("escultor-store") as store:
        made = {
            "example": lambda i: Example(f"r{i}", prompt[i], f"dog {i}", origin),
            "pair": lambda i: Pair(f"r{i}", prompt[i], f"dog {i}", "bird", origin),
            "unpaired": lambda i: UnpairedExample(f"r{i}", prompt[i], f"dog {i}", bool(i % 2), origin),
        }[kind]
        items = [made(i) for i in range(6)]
        rows = b"".join(write_line(CurationRow(item, item.origin.rule)) for item in items)
        blob = store.blobs.put_bytes(rows)
        store.log.append(DatasetVersion("c" * 32, "made", kind, 6, {"rule resampled/1": 6}, blob))
    assert steps.write_line is write_line


def made_by_convert(cli, kind):
    with open_store("escultor-store") as store:
        served_pairs(store, "v")
    cli("feedback", "convert", "--out", "june.jsonl")
    return cli("feedback", "convert", "--out", "made.jsonl", "--json")  # equal rows under a second name


MAKERS = {
    ("import", "example"): made_by_import,
    ("curate", "pair"): made_by_curate,
    ("balance", "unpaired"): made_by_balance,
    ("review", "example"): made_by_review,
    ("cycle", "pair"): made_by_cycle,
    ("cycle", "unpaired"): made_by_cycle,
    ("convert", "pair"): made_by_convert,
}


@pytest.fixture
def command(cli, tmp_path):
    cli.folder = tmp_path
    return cli


@pytest.mark.parametrize(("maker", "kind"), MAKERS)
def test_every_user_takes_what_every_maker_made(command, model, tmp_path, maker, kind):
    call = MAKERS[maker, kind](command, kind)
    assert call is None or call.code == 0, call.err
    name = "made-pair" if maker == "convert" else "made"

    def used(*words, **more):
        done = command(*words, **more)
        assert done.code == 0, (words, done.err)
        return done

    n = used("data", "check", name, "--json").data["counts"]["kept"]
    assert n == (24 if maker == "convert" else 5 if maker == "review" else 6)
    for format in ("jsonl", "trl", "parquet", *(["openai"] if kind != "unpaired" else [])):
        assert used("data", "export", name, "--format", format, "--out", "out.x", "--json").data["rows"] == n
    used("data", "export", name, "--out", "again.jsonl")
    again = used("data", "check", "again.jsonl", "--json")
    assert (again.data["kind"], again.data["counts"]["kept"]) == (kind, n)
    for ending in ("md", "html", "json"):
        used("data", "card", name, "--out", f"card.{ending}")
    assert json.loads((tmp_path / "card.json").read_text())["name"] == name
    used("data", "diff", name, name)
    used("data", "curate", name, "--out", "again", *CURATED)
    assert "again" in {d["name"] for d in used("data", "list", "--json").data["datasets"]}
    method = METHOD[kind]
    used(method, "--model", model, "--data", name, "--out", f"run-{method}", *SHORT)
    used("data", "review", name, "--rows", "1", "--reviewer", "b", input="r\nwrong\n")
    used("data", "review", name, "--finish")
    assert used("data", "check", name, "--json").data["counts"]["kept"] == n - 1
