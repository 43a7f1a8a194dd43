"""docs/quickstart.md is run as it stands, with a tiny model: every file, command and program of it."""

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "model" / "gguf"))


def experiment():
    spec = spec_from_file_location("quickstart", ROOT / "experiments" / "quickstart.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_how_much_a_person_does_until_the_first_verdict():
    walked = experiment()
    page = walked.PAGE.read_text()
    steps = list(walked.steps_of(page))
    at = {line.split(" --")[0]: n for n, (line, text) in enumerate(steps) if not text}
    until = steps[at["escultor skills new support"] : at["escultor compare champion runs/sft"] + 1]
    settings = [line for line in dict(until)["escultor.yaml"].splitlines() if line.strip()]
    commands = sum(not text for _, text in until)
    said = (
        f"{commands} commands and writes 3 lines of the declaration and {len(settings)} of the configuration"
    )
    assert said in " ".join(page.split())


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_the_page_is_walked_from_a_gguf_file_to_the_next_one(cli, tmp_path, monkeypatch):
    for name in ("xllamacpp", "peft", "openai"):
        pytest.importorskip(name)
    import gguf_models

    from escultor.model.folders import save

    walked = experiment()
    monkeypatch.setitem(gguf_models.SHAPE, "max_position_embeddings", 512)
    save(gguf_models.model("llama"), tmp_path / "whole")
    made = cli("models", "export", tmp_path / "whole", "--out", "first", "--quant", "f32", "--json")
    assert made.code == 0, made.err
    declared = []
    walked.write_data(tmp_path, calls=60, examples=12, more=60)

    def call(words):
        answer = cli(*words, "--json")
        if words[:2] == ["skills", "new"]:
            # The first model learns another word than the queues', so that people have something to correct.
            examples = tmp_path / "support.examples.jsonl"
            rows = [json.loads(line) | {"output": "unknown"} for line in examples.read_text().splitlines()]
            examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
            declared.append(yaml.safe_load((tmp_path / "support.yaml").read_text()))
        return answer.code, answer.data

    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    changes = {"epochs: 3": "epochs: 12", "learning_rate: 0.0005": "learning_rate: 0.01"}
    gguf = tmp_path / "first" / "first-f32.gguf"
    steps = walked.walk(tmp_path, gguf, call, environment, changes=changes)
    commands = [line for line, text in walked.steps_of(walked.PAGE.read_text()) if not text]
    assert [step["step"] for step in steps] == commands
    told = {step["step"].split(" --")[0]: step for step in steps}
    # What the page shows is what the command proposes, but for the lines that it says are written by hand.
    shown = yaml.safe_load(dict(walked.steps_of(walked.PAGE.read_text()))["support.yaml"])
    by_hand = {"about", "instruction", "guards", "rubric"}  # a rubric may stay as it is
    assert {k: v for k, v in declared[0].items() if k not in by_hand} == {
        k: v for k, v in shown.items() if k not in by_hand
    }
    assert told["escultor cycle"]["verdict"] == "promote"
    assert told["escultor cycle resume"]["state"] in ("trial", "promoted")
    assert (tmp_path / "served" / "served-q8_0.gguf").is_file()
