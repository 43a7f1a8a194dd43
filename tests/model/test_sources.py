"""Where a model of a name lies: in a file, a folder, Ollama, LM Studio."""

import json

import pytest

from escultor.errors import InputError, ModelError
from escultor.model.sources import find_source

GGUF = b"GGUF" + bytes(32)
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr("escultor.model.sources._hub", lambda *given: None)
    return tmp_path


def ollama(home, name="tiny", tag="latest", **layers):
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library" / name / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"model": DIGEST} | layers
    manifest.write_text(
        json.dumps(
            {
                "layers": [
                    {"mediaType": f"application/vnd.ollama.image.{k}", "digest": d} for k, d in kinds.items()
                ]
            }
        )
    )
    blob = home / ".ollama/models/blobs" / DIGEST.replace(":", "-")
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(GGUF)
    return manifest, blob


def test_models_of_ollama_and_lm_studio_are_found_by_name(home):
    _, blob = ollama(home)
    ollama(home, tag="q8")
    assert find_source("tiny") == ("gguf", blob, "tiny") == find_source("tiny:q8")
    folder = home / ".lmstudio/models/maker/model-GGUF"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(GGUF)
    (folder / "mmproj-model.gguf").write_bytes(GGUF)
    assert find_source("maker/model-GGUF") == ("gguf", folder / "model.gguf", "model")
    (folder / "second.gguf").write_bytes(GGUF)
    with pytest.raises(ModelError, match="second"):
        find_source("maker/model-GGUF")
    assert find_source("maker/model-GGUF/second.gguf").path == folder / "second.gguf"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "tiny:../../x", "a/../b", "", ":", "..", "nothing", "a b"]
)
def test_a_name_never_leads_out_of_its_folders(home, name, monkeypatch):
    ollama(home)
    monkeypatch.chdir(home)  # `..` is a folder, whose files are not what is tested
    with pytest.raises(ModelError):
        find_source(name)


def test_damaged_records_of_ollama_are_refused(home):
    manifest, blob = ollama(home, model="sha256:../../../secret")
    with pytest.raises(ModelError, match="damaged"):
        find_source("tiny")
    manifest.write_text("[1, 2]")
    with pytest.raises(ModelError, match="damaged"):
        find_source("tiny")
    ollama(home, adapter=DIGEST)
    with pytest.raises(ModelError, match="adapter"):
        find_source("tiny")
    ollama(home)
    blob.unlink()
    with pytest.raises(ModelError, match="ollama pull"):
        find_source("tiny")


def test_what_cannot_be_trained_is_said(home):
    with pytest.raises(InputError, match="serve --upstream"):
        find_source("http://127.0.0.1:8000/v1")
    (home / "notes.txt").write_text("no model")
    with pytest.raises(ModelError, match=r"(?s)no model that can be imported.*download it again"):
        find_source(str(home / "notes.txt"))
    with pytest.raises(ModelError, match="no such file"):  # without a look at the hub
        find_source("models/model.gguf")
    (home / "empty").mkdir()
    with pytest.raises(ModelError, match="no config"):
        find_source(str(home / "empty"))
