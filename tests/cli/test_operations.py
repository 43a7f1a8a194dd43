"""`docs/operations.md`: every command on the page works, in the page's order."""

import re
import time
from itertools import takewhile
from pathlib import Path

from escultor.store import open_store
from escultor.types import Interaction, Message, Role, Sampling, Usage

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def commands():
    lines = PAGE.read_text().splitlines()
    return [line.split("#")[0].split() for line in lines if line.startswith("    escultor ")]


def fail_calls(store_url, version):
    now, said = time.time(), (Message(Role.USER, "cat"),)
    rows = [
        Interaction(
            f"chat-{n}", now - 300 + n, "chat", "someone", version, "champion", 1.0, said,
            "", "error", Sampling(), Usage(3, 0), 5.0, None, 0.0, "prompt",
        )
        for n in range(40)
    ]  # fmt: skip
    with open_store(store_url) as store:
        store.log.append(*rows)


def test_the_page_is_run_from_start_to_restore(cli, model, other_model, tmp_path):
    words = {"MODEL": str(model), "STORE": "store", "NEW": "restored", "BACKUP": "backup", "NAME": "ana"}
    seen = []
    for line in commands():
        args = [words.get(word, word) for word in " ".join(line[1:]).replace('"', "").split()]
        if args[:1] == ["serve"] or "--follow" in args:  # tests of their own start these
            assert cli(*args, "--help").code == 0
            continue
        if "KEY" in args:
            args[args.index("KEY")] = cli("keys", "list", "--store", "store", "--json").data["keys"][0]["id"]
        if args[0] == "rollback":
            assert cli("promote", other_model, "--because", "the second", "--store", "store").code == 0
        if "ALERT" in args:
            args[args.index("ALERT")] = cli("monitor", "--store", "store", "--json").data["changes"][0]
        if "--because" in args:
            args = ["promote", str(model), "--because", "the first", "--store", "store"]
        if "--note" in args:
            at = args.index("--note")
            args = [*args[: at + 1], "looking at it", "--store", "store"]
        call = cli(*args)
        assert call.code == 0, (args, call.err)
        seen.append(args[0])
        if args[0] == "monitor" and "--acknowledge" not in args:
            with open_store("store") as store:
                from escultor.store import registry

                version = registry.champion(registry.read_deployments(store.log))
            fail_calls("store", version)
    assert {
        "promote",
        "keys",
        "monitor",
        "models",
        "rollback",
        "backup",
        "restore",
        "gc",
        "interactions",
    } <= set(seen)
    with open_store("store") as store, open_store("restored") as again:
        assert store.log.count(Interaction) == again.log.count(Interaction) == 40


def test_every_option_that_a_remark_names_exists(cli):
    found = 0
    for line in PAGE.read_text().splitlines():
        command, _, remark = line.partition("#")
        if line.startswith("    escultor ") and (
            named := re.findall("--[a-z-]+", re.sub("`.*?`", "", remark))
        ):
            path = takewhile(str.islower, command.split()[1:])
            shown = cli(*takewhile(str.isalpha, path), "--help").out
            assert [option for option in named if option not in shown] == []
            found += 1
    assert found >= 3


def test_every_alert_has_a_runbook():
    runbook = PAGE.read_text().split("## Runbook")[1]
    rules = re.findall(
        r"^ *- alert: (\w+)", (PAGE.parents[1] / "deploy/prometheus/rules.yml").read_text(), re.M
    )
    page = (PAGE.parent / "monitoring.md").read_text().split("## Rules")[1].split("###")[0]
    rules += re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert len(rules) > 12
    assert [rule for rule in rules if f"`{rule}`" not in runbook] == []
