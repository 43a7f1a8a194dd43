"""`docs/cycle.md`: every command on the page works, in the page's order."""

import sys
from pathlib import Path

import yaml

from escultor.cli import cycle as cycle_commands
from escultor.store import open_store, registry

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "cycle"))

from cycle_store import config_at, fill  # noqa: E402

PAGE = ROOT / "docs" / "cycle.md"


def commands():
    lines = PAGE.read_text().splitlines()
    return [line.split("#")[0].split() for line in lines if line.startswith("    escultor ")]


def test_the_page_is_run_from_the_first_model_to_its_lineage(cli, tmp_path, monkeypatch):
    config = config_at(tmp_path, "store")
    Path("escultor.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    first = fill(config, tmp_path)
    monkeypatch.setattr(cycle_commands, "_follow", lambda shell, every: cycle_commands.CommandResult())
    words = {"MODEL": "model", "STORE": "store", "ANSWER": "chatcmpl-animal-0", "LINEAGE": "tree.mmd"}
    states, runs = [], 0
    for line in commands():
        args = [words.get(word, word) for word in " ".join(line[1:]).replace('"', "").split()]
        for option, value in (("--because", "the first"), ("--reason", "a test")):
            if option in args:
                at = args.index(option)
                args[at + 1 : at + 3] = [value]
        if args[:2] == ["cycle", "--store"] and (runs := runs + 1) == 2:  # all of it again, from the first
            with open_store("store") as store:
                current = registry.current(registry.read_deployments(store.log))
                store.log.append(registry.deployment_for("again", first, current))
            args[1:1] = ["--since", "1970-01-01T00:00:01"]
        call = cli(*args, "--json")
        assert call.code == 0, (args, call.err)
        if args[0] == "keys":
            monkeypatch.setenv("ESCULTOR_APPROVAL_KEY", call.data["key"])
        states += [call.data["state"]] if "state" in call.data else []
    assert states == ["promoted", "waiting", "trial", "trial", "cancelled"]
    assert Path("tree.mmd").read_text().startswith("flowchart BT\n")
