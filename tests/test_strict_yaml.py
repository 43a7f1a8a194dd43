"""YAML that would hang or end a process is refused in a line."""

import pytest
import yaml

from escultor.config import load_config
from escultor.errors import ConfigError
from escultor.strict_yaml import load_yaml


def test_plain_documents_and_small_aliases_are_read():
    assert load_yaml("a: &x [1, 2]\nb: *x\nc: {d: null}") == {"a": [1, 2], "b": [1, 2], "c": {"d": None}}
    assert load_yaml("") is None


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "aliases"),
        ("[" * 20_000, "levels"),
        ("{a: " * 20_000, "levels"),
        ("- " * 20_000, "levels"),
        ("a: &a [*a]", "holds itself"),
        ("a: 1\na: 2", "duplicate keys: a"),
        ("!!python/object/apply:os.system [echo]", "constructor"),
    ],
    ids=range(7),
)
def test_what_would_hang_or_run_is_refused(text, why, tmp_path):
    with pytest.raises(yaml.YAMLError, match=why):
        load_yaml(text)
    path = tmp_path / "escultor.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_config(path)
