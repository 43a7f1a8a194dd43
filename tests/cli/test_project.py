"""`init`, `doctor`, and the configuration given on the command line."""

import pytest
import yaml

from escultor.cli.init import yaml_text
from escultor.config import Config, Lora, load_config


def test_init_writes_the_defaults_and_every_key_has_its_comment(cli, tmp_path):
    assert cli("init", "project").code == 0
    path = tmp_path / "project" / "escultor.yaml"
    assert load_config(path) == Config()
    text = path.read_text(encoding="utf-8")
    for section, info in Config.model_fields.items():
        if not hasattr(info.annotation, "model_fields"):  # a key without a section
            assert f"{section}: []  # {info.description}" in text
            continue
        keys = info.annotation.model_fields
        assert set(yaml.safe_load(text)[section]) == set(keys)
        for key, field in keys.items():
            line = next(
                line for line in text.split(f"\n{section}:\n")[1].splitlines() if line.startswith(f"  {key}:")
            )
            assert line.endswith(f"{field.description}")


def test_adapters_are_switched_on_by_taking_the_hashes_away(tmp_path):
    path = tmp_path / "escultor.yaml"
    lines = [
        line.replace("  # ", "  ", 1) if line.startswith("  # ") else line
        for line in yaml_text().splitlines()
    ]
    path.write_text(
        "\n".join(line for line in lines if not line.startswith("  lora: null")), encoding="utf-8"
    )
    config = load_config(path)
    assert config.sft.lora == config.dpo.lora == config.distillation.lora == Lora()
    assert config.pretrain.lora is None


def test_init_refuses_to_overwrite_without_force(cli, tmp_path):
    (tmp_path / "escultor.yaml").write_text("sft: {epochs: 7}\n")
    call = cli("init")
    assert call.code == 2
    assert "--force" in call.err
    assert load_config(tmp_path / "escultor.yaml").sft.epochs == 7
    assert cli("init", "--force").code == 0
    assert load_config(tmp_path / "escultor.yaml") == Config()


def test_doctor_names_every_check_and_passes_here(cli):
    call = cli("doctor", "--json")
    checks = {check["name"]: check for check in call.data["checks"]}
    assert {"python", "torch", "threads", "bfloat16", "transformers", "disk", "store", "model"} <= set(checks)
    assert {check["state"] for check in checks.values()} <= {"ok", "warn", "fail"}
    assert all(check["remedy"] for check in checks.values() if check["state"] != "ok")
    assert call.code == (1 if call.data["failed"] else 0)


def test_doctor_makes_no_store_and_reads_one_that_is_there(cli, tmp_path, model):
    cli("doctor")
    assert list(tmp_path.iterdir()) == []
    cli("promote", model, "--because", "a test")
    call = cli("doctor", "--json")
    assert "1 models, 1 deployments" in next(c["found"] for c in call.data["checks"] if c["name"] == "store")


def test_doctor_fails_with_a_remedy_where_the_store_is_damaged(cli, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "log.db").write_text("this is no database at all, but long enough to look")
    call = cli("doctor", "--store", "store", "--json")
    assert call.code == 1
    store = next(check for check in call.data["checks"] if check["name"] == "store")
    assert store["state"] == "fail"
    assert "point the store" in store["remedy"]


WRONG = [
    (("--set", "sft.learning_rte=1"), "did you mean `learning_rate`"),
    (("--set", "dpo.beta=-1"), "greater than 0"),
    (("--set", "dpo.beta"), "section.key=value"),
    (("--set", "nonsense.key=1"), "`nonsense` is not a key"),
    (("--config", "missing.yaml"), "missing.yaml"),
    (("--store", "mysql://host/name"), "postgresql://"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_configuration_that_cannot_be_is_refused_with_2(cli, tmp_path, words, said):
    (tmp_path / "some.txt").write_text("x")
    call = cli("promote", "some.txt" if "--store" not in words else "champion", "--because", "x", *words)
    assert call.code == 2
    assert said in call.err


def test_the_file_in_the_folder_is_read_and_the_command_line_goes_before_it(cli, tmp_path, model):
    (tmp_path / "escultor.yaml").write_text("store: {url: from-file}\n")
    assert cli("promote", model, "--because", "x").code == 0
    assert (tmp_path / "from-file" / "log.db").is_file()
    assert cli("promote", model, "--because", "x", "--store", "from-words").code == 0
    assert (tmp_path / "from-words" / "log.db").is_file()
