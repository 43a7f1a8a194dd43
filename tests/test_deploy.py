"""What `deploy/` holds: rules that pass their own tests, metrics that exist, no root, no open port."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from escultor.cli.app import app
from escultor.config import load_config

DEPLOY = Path(__file__).parents[1] / "deploy"
SOURCE = Path(__file__).parents[1] / "src" / "escultor" / "serve" / "gateway"
PROMTOOL = shutil.which("promtool")


def known_metrics():
    text = (SOURCE / "metrics.py").read_text() + (SOURCE / "metric_routes.py").read_text()
    named = set(re.findall(r'"((?:gen_ai|escultor)_[a-z_]+)"', text))
    return named | {f"escultor_{name}" for name in re.findall(r'^ +"([a-z_]+)": \("', text, re.MULTILINE)}


@pytest.mark.parametrize("name", ["prometheus/rules.yml", "grafana/dashboard.json"])
def test_rules_and_dashboard_name_metrics_that_exist(name):
    known = known_metrics()
    used = set(re.findall(r"\b(?:gen_ai|escultor)_[a-z_]+", (DEPLOY / name).read_text()))
    labels = {"gen_ai_response_model", "gen_ai_token_type", "gen_ai_operation_name"}
    suffix = re.compile("_(count|sum|bucket|total)$")
    assert {
        each for each in used - labels if each not in known and suffix.sub("", each) not in known
    } == set()


@pytest.mark.skipif(PROMTOOL is None, reason="Prometheus is not installed")
def test_the_rules_fire_and_are_silent_as_their_tests_say():
    folder = DEPLOY / "prometheus"
    for args in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([str(PROMTOOL), *args], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_reads():
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) > 5
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])


def test_the_image_does_not_run_as_root_and_ports_are_local():
    steps = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert "USER escultor" in steps
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(
        "PASSWORD" in str(s.get("environment", "")) and "_FILE" not in str(s) for s in services.values()
    )


def test_the_configuration_of_the_containers_is_read():
    config = load_config(DEPLOY / "escultor.yaml")
    assert config.serve.upstream is not None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").iterdir()), ids=lambda path: path.name)
def test_units_are_what_systemd_understands(path):
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert [line for line in said if "is not executable" not in line] == []


def commands():
    """The words of every call of `escultor` in units, containers and their comments."""
    for path in (DEPLOY / "systemd").glob("*.service"):
        yield from (line.split()[1:] for line in re.findall("^ExecStart=(.*)$", path.read_text(), re.M))
    text = (DEPLOY / "compose.yaml").read_text()
    yield from (line.split() for line in re.findall(r"run --rm gateway ([^#\n]+)", text))
    for service in yaml.safe_load(text)["services"].values():
        if service.get("image") == "escultor":
            assert "--config /etc/escultor.yaml --store" in service["entrypoint"][2]
            yield [*service["command"], "--config", "c.yaml", "--store", "s"]
    yield json.loads((DEPLOY / "Dockerfile").read_text().split("\nCMD ")[1])


@pytest.mark.parametrize("words", [*commands()], ids=" ".join)
def test_every_command_is_one_that_the_program_knows(words):
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output


def test_what_containers_name_exists():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert set(service.get("secrets", ())) <= compose["secrets"].keys()
        assert set(service.get("depends_on", ())) <= compose["services"].keys()
        for source, *_ in (volume.split(":") for volume in service.get("volumes", ())):
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert len(copied) == 2
    assert all((DEPLOY.parent / name).exists() for line in copied for name in line.split())
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert all((DEPLOY / "prometheus" / name).exists() for name in scraped["rule_files"])
    targets = re.findall(r'targets: \["(\w+):', (DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert set(targets) <= compose["services"].keys()


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_run_as_their_own_user_with_private_files(path):
    text = path.read_text()
    assert "User=escultor" in text
    assert "UMask=0077" in text
