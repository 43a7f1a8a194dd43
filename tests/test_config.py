import pytest
import yaml
from pydantic import ValidationError

from escultor.cli.output import warnings_on_stderr
from escultor.config import Config, Section, aliases, load_config, load_policy, with_steps
from escultor.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "escultor.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# --- defaults ---------------------------------------------------------------------------------

DESIGNED = {
    "sft": {"learning_rate": 1e-5, "epochs": 3, "batch_size": 32, "warmup_steps": 100, "weight_decay": 0.01},
    "dpo": {"beta": 0.1, "learning_rate": 5e-6, "epochs": 1, "batch_size": 16},
    "distillation": {"temperature": 2.0, "alpha": 0.7, "learning_rate": 2e-5, "epochs": 10},
}


def numbers(config):
    return {
        section: {key: getattr(getattr(config, section), key) for key in keys}
        for section, keys in DESIGNED.items()
    }


def test_the_defaults_are_the_designed_numbers(file):
    for config in (Config(), load_config(), load_config(file("")), load_config(file("# nothing\n"))):
        assert numbers(config) == DESIGNED
    assert load_config().monitor.thumbs_down_limit == 0.10


def test_a_file_with_only_the_three_training_sections_is_a_config(file):
    config = load_config(file(yaml.safe_dump(DESIGNED)))
    assert numbers(config) == DESIGNED
    assert config == load_config()
    assert load_config(file("sft: {epochs: 5}\ndpo: {}\ndistillation: {alpha: 0.5}")).sft.epochs == 5


def test_a_config_written_out_loads_as_itself(file):
    config = load_config(None, ("sft.lora={rank: 4}", "gate.guards={valid: 0.1}", "model.path=here"))
    assert load_config(file(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_every_key_says_what_it_does_and_cannot_be_changed():
    def sections(model):
        for field in model.model_fields.values():
            for option in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(option, type) and issubclass(option, Section):
                    yield option
                    yield from sections(option)

    for section in set(sections(Config)):
        for name, field in section.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
            assert nested or field.description, f"{section.__name__}.{name}"
    with pytest.raises(ValidationError, match="frozen"):
        Config().sft.epochs = 4


# --- overrides --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("dpo.beta=1e-3", "dpo", "beta", 1e-3),
        ("dpo.beta = 0.2", "dpo", "beta", 0.2),
        ("sft.shuffle=false", "sft", "shuffle", False),
        ("sft.max_steps=null", "sft", "max_steps", None),
        ("sft.optimizer=muon", "sft", "optimizer", "muon"),
        ("model.path=a=b", "model", "path", "a=b"),
        ("gate.primary=[quality, entity]", "gate", "primary", ("quality", "entity")),
    ],
)
def test_an_override_sets_one_key(text, section, key, value):
    assert getattr(getattr(load_config(None, (text,)), section), key) == value


def test_overrides_win_over_the_file_and_later_ones_over_earlier(file):
    path = file("dpo: {beta: 0.5, epochs: 7}")
    config = load_config(path, ("dpo.beta=0.2", "dpo.beta=0.3", "sft.lora.rank=4"))
    assert (config.dpo.beta, config.dpo.epochs, config.sft.lora.rank) == (0.3, 7, 4)


def test_numbers_as_people_write_them_are_numbers(file):
    assert load_config(file("sft: {learning_rate: 1e-5}")).sft.learning_rate == 1e-5


@pytest.mark.parametrize("text", ["beta=1", "dpo.beta", "=", "dpo.=1", ".beta=1", "", "dpo.beta.more=1"])
def test_an_override_that_cannot_be_read_is_refused(file, text):
    path = file("dpo: {beta: 0.5}")
    with pytest.raises(ConfigError, match=r"override.*section\.key=value"):
        load_config(path, (text,))


def test_an_override_that_is_no_yaml_is_refused():
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(None, ("dpo.beta={",))


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft: {learning_rat: 1}", r"`sft\.learning_rat` is not a key; did you mean `learning_rate`\?"),
        ("distilation: {}", r"`distilation` is not a key; did you mean `distillation`\?"),
        ("sft: {lora: {rnk: 1}}", r"`sft\.lora\.rnk` is not a key; did you mean `rank`\?"),
        ("sft: {zzz: 1}", r"`sft\.zzz` is not a key; known: learning_rate, epochs"),
        ("dpo: {alpha: 0.5}", r"`dpo\.alpha` is not a key"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(file, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(file(text))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sft: {learning_rate: 0}", "sft.learning_rate"),
        ("sft: {learning_rate: .inf}", "sft.learning_rate"),
        ("sft: {learning_rate: .nan}", "sft.learning_rate"),
        ("sft: {epochs: -1}", "sft.epochs"),
        ("sft: {batch_size: 1.5}", "sft.batch_size"),
        ("sft: {batch_size: many}", "sft.batch_size"),
        ("sft: {schedule: wavy}", "sft.schedule"),
        ("sft: {lora: {rank: 0}}", "sft.lora.rank"),
        ("sft: []", "sft"),
        ("distillation: {alpha: 1.1}", "distillation.alpha"),
        ("distillation: {temperature: 0}", "distillation.temperature"),
        ("gate: {alpha: 0.5}", "gate.alpha"),
        ("gate: {guards: {valid: -1}}", "gate.guards.valid"),
        ("pretrain: {hidden_size: 10, heads: 3}", "pretrain"),
        ("pretrain: {heads: 3, kv_heads: 2}", "pretrain"),
        ("pretrain: {max_length: 2048}", "pretrain"),
        ("pretrain: {lora: {}}", "pretrain"),
    ],
)
def test_an_impossible_value_is_refused_by_key(file, text, key):
    with pytest.raises(ConfigError, match=f"`{key}`: .*got: "):
        load_config(file(text))


def test_all_problems_are_gathered_before_refusing(file):
    path = file("sft: {learning_rate: 0, epoch: 3}\ndpo: {beta: none}\nextra: 1")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text.splitlines()) == 5
    for key in ("sft.learning_rate", "sft.epoch", "dpo.beta", "extra"):
        assert f"`{key}`" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "cannot be read as YAML"),
        ("sft: {".encode("utf-16"), "cannot be read as YAML"),
        ("sft: {", "cannot be read as YAML"),
        ("a: b: c", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("- sft", "not a mapping; got: list"),
        ("sft", "not a mapping; got: str"),
        ("1: {}", "is not a key|cannot be used"),
    ],
)
def test_a_file_that_is_no_mapping_of_sections_is_refused(file, content, message):
    with pytest.raises(ConfigError, match=message):
        load_config(file(content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"{path} cannot be read; got: .*; remedy: give the path"):
            load_config(path)


def test_an_empty_section_is_its_defaults_and_a_section_given_twice_is_refused(tmp_path):
    path = tmp_path / "escultor.yaml"
    path.write_text("sft:\ndpo: {beta: 0.2}\n")
    assert load_config(path).dpo.beta == 0.2
    path.write_text("sft: {seed: 1}\nsft: {seed: 2}\n")
    with pytest.raises(ConfigError, match="duplicate keys: sft"):
        load_config(path)
    path.write_text("sft: {seed: 2020-99-99}\n")
    with pytest.raises(ConfigError):
        load_config(path)


# --- keys under an old name ----------------------------------------------------------------------


@pytest.fixture
def renamed(monkeypatch):
    """A table with a rename below a renamed section, a moved key, a renamed choice and a removed key."""
    renames = {
        "routes": "feedback",
        "feedback.few": "feedback.min_pairs",
        "serve.pause": "monitor.cooldown_s",
    }
    monkeypatch.setattr(aliases, "RENAMED", renames)
    values = {"dpo.loss": {"plain": "sigmoid"}, "curation.steps": {"same": "exact"}}
    monkeypatch.setattr(aliases, "RENAMED_VALUES", values)
    monkeypatch.setattr(aliases, "REMOVED", {"sft.magic": "it never did anything"})


def test_old_keys_and_values_load_with_one_warning_that_names_the_new_ones(file, renamed):
    old = "routes: {few: 7, min_unpaired: 9}\nserve: {pause: 3}\ndpo: {loss: plain}\nsft: {magic: 1}"
    with pytest.warns(aliases.RenamedKeyWarning) as caught:
        config = load_config(file(old))
    new = "feedback: {min_pairs: 7, min_unpaired: 9}\nmonitor: {cooldown_s: 3}\ndpo: {loss: sigmoid}"
    assert config == load_config(file(new))
    (warning,) = caught
    for part in (
        "`routes` is now called `feedback`",
        "`dpo.loss: sigmoid`",
        "`monitor.cooldown_s`",
        "sft.magic",
    ):
        assert part in str(warning.message)


def test_the_section_of_feedback_over_http_loads_under_its_old_name(file):
    with pytest.warns(aliases.RenamedKeyWarning, match="`serve.feedback` is now called `serve.intake`"):
        assert load_config(file("serve: {feedback: {token_days: 3}}")).serve.intake.token_days == 3


def test_an_override_with_an_old_key_wins_over_the_file(file, renamed):
    path = file("feedback: {min_pairs: 7}")
    overrides = ("routes.few=8", "routes.max_flip_rate=0.2", "serve.pause=1", "sft.magic=2", "dpo.loss=plain")
    with pytest.warns(aliases.RenamedKeyWarning, match="few"):
        config = load_config(path, overrides)
    assert (config.feedback.min_pairs, config.feedback.max_flip_rate, config.monitor.cooldown_s) == (
        8,
        0.2,
        1,
    )
    assert config.dpo.loss == "sigmoid"
    with pytest.warns(aliases.RenamedKeyWarning, match="few"):
        assert load_config(None, ("feedback.few=9",)).feedback.min_pairs == 9


def test_a_key_under_both_names_is_refused(file, renamed):
    for text in ("routes: {few: 7}\nfeedback: {min_pairs: 7}", "feedback: {few: 7, min_pairs: 8}"):
        with pytest.raises(ConfigError, match="mean the same"):
            load_config(file(text))


def test_policies_and_step_lists_load_under_old_names(file, monkeypatch, renamed):
    monkeypatch.setattr(aliases, "RENAMED", {"gate.error": "gate.alpha", "curation.similar": "curation.near"})
    with pytest.warns(aliases.RenamedKeyWarning, match=r"gate\.alpha"):
        assert load_policy(file("error: 0.01")).alpha == 0.01
    monkeypatch.setitem(aliases.RENAMED_VALUES, "curation.steps", {"same": "exact", "similar": "near"})
    with pytest.warns(aliases.RenamedKeyWarning, match=r"curation\.near"):
        curation = with_steps(Config(), file("- same\n- similar: {threshold: 0.5}")).curation
    assert (curation.steps, curation.near.threshold) == (("exact", "near"), 0.5)


def test_every_renamed_key_leads_to_a_key_that_is_there():
    for path in (*aliases.RENAMED.values(), *aliases.RENAMED_VALUES):
        section = Config
        for name in aliases.current_path(path).split("."):
            field = section.model_fields[name]
            section = type(field.default) if isinstance(field.default, Section) else field.annotation
    assert not set(aliases.RENAMED) & set(Config.model_fields)


def test_the_command_line_prints_the_warning_once_on_stderr(file, capsys):
    with warnings_on_stderr():
        for _ in range(2):
            load_config(file("routes: {min_pairs: 3}"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("`routes` is now called `feedback`") == 1


def test_a_key_of_a_server_is_refused_where_no_server_is_asked(file):
    with pytest.raises(ConfigError, match="key_env MINE has no effect without url"):
        load_config(file("feedback: {resampling: {judge: here, key_env: MINE}}"))
