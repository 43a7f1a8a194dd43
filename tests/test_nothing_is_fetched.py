"""What data, schemas, documents and models of others name is not fetched: a server that listens sees nobody
come."""

import json
import socket
import zipfile
from contextlib import suppress

import huggingface_hub
import pytest
import tiny
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from jsonschema.exceptions import _WrappedReferencingError as WrappedReferencingError
from safetensors.torch import save_file

from escultor.cycle.exchange import import_model
from escultor.data.jsonl import read_jsonl
from escultor.errors import DataError, EscultorError, ModelError
from escultor.model.folders import save
from escultor.model.load import load
from escultor.serve.engines.guided import Guides
from escultor.skills.declaration import read_skill
from escultor.skills.documents import read_document
from escultor.skills.schema import check_schema, schema_valid
from escultor.skills.suite_files import read_suite
from escultor.store import open_store


@pytest.fixture
def url():
    """The address of a server; at the end nobody has come."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/seen"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("key", ["$ref", "$dynamicRef", "$schema", "$id"])
def test_schemas(url, key):
    schema = {"type": "object", "properties": {"a": {key: url}}, key: url}
    with suppress(DataError):
        check_schema(schema, "a schema")
    with suppress(WrappedReferencingError):
        schema_valid('{"a": 1}', schema)


@pytest.mark.parametrize(
    "name",
    ["a.html", "a.xhtml", "a.eml", "a.docx"],
)
def test_documents(url, name, tmp_path):
    entities = f'<!ENTITY e SYSTEM "{url}"><!ENTITY f SYSTEM "file:///etc/passwd">'
    entity = f'<!DOCTYPE html PUBLIC "x" "{url}" [{entities}]>'
    page = f'{entity}<html><head><base href="{url}"><link rel="stylesheet" href="{url}"></head><body>text &e;'
    page += f'&f;<img src="{url}"><iframe src="{url}"></iframe><object data="{url}"></object></body></html>'
    path = tmp_path / name
    if name == "a.eml":
        head = (
            f'From: a@b.c\nSubject: s\nContent-Type: message/external-body; access-type=URL; URL="{url}"\n\n'
        )
        path.write_text(f"{head}text")
    elif name == "a.docx":
        docx = pytest.importorskip("docx")
        docx.Document().save(str(tmp_path / "empty.docx"))
        word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
        body = "<w:body><w:p><w:r><w:t>text &e;&f;</w:t></w:r></w:p></w:body>"
        with zipfile.ZipFile(tmp_path / "empty.docx") as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.namelist():
                data = old.read(entry)
                if entry == "word/document.xml":
                    data = f'{entity}<w:document xmlns:w="{word}">{body}</w:document>'.encode()
                elif entry.endswith(".rels"):
                    image = f'<Relationship Id="r99" Type="x/image" TargetMode="External" Target="{url}"/>'
                    data = data.replace(b"</Relationships>", image.encode() + b"</Relationships>")
                new.writestr(entry, data)
    else:
        path.write_text(page)
    with suppress(DataError):
        assert "root:" not in read_document(path).text


def test_rows_suites_and_skills(url, tmp_path):
    picture = {"type": "image_url", "image_url": {"url": url}}
    asked = [{"role": "user", "content": [{"type": "text", "text": url}, picture]}]
    row = {
        "messages": [*asked, {"role": "assistant", "content": f"hf://a/b {url}"}],
        "tools": [{"$ref": url}],
    }
    for name, text in {
        "rows.jsonl": json.dumps(row),
        "suite.yaml": f"name: s\nmetrics: [exact_match]\nitems: {url}",
        "other.yaml": f"name: s\nmetrics: [exact_match]\nitems: [{{id: a, prompt: {url}, reference: hf://a/b}}]",
        "skill.yaml": f"name: s\ninstruction: {url}\noutput: {{schema: {url}}}\nexamples: {url}\nsuite: hf://a/b",
    }.items():
        (tmp_path / name).write_text(text)
        read = {"rows": lambda path: read_jsonl(path, "example"), "skill": read_skill}.get(
            name.split(".")[0], read_suite
        )
        with suppress(EscultorError):
            read(tmp_path / name)


def test_models(url, tmp_path, monkeypatch):
    asked = []

    def download(name, local_files_only=False, **options):
        asked.append((name, local_files_only))
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    save(tiny.llama(), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"_name_or_path": url, "auto_map": {"AutoModelForCausalLM": f"{url}--code.Model"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with suppress(ModelError):
        load(str(tmp_path / "model"))
    (tmp_path / "adapter").mkdir()
    save_file({"weight": torch.zeros(1)}, tmp_path / "adapter" / "adapter_model.safetensors")
    with open_store(str(tmp_path / "store")) as store:
        for base in (url, "a/b"):
            written = json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"})
            (tmp_path / "adapter" / "adapter_config.json").write_text(written)
            with pytest.raises(EscultorError) as refused:
                import_model(store, str(tmp_path / "adapter"))
    assert asked == [("a/b", True)]
    assert "escultor models import a/b" in str(refused.value)


def test_guides(url):
    model = tiny.llama()
    guides = Guides(model.tokenizer, model.stops, model.model.config.vocab_size)
    with pytest.raises(EscultorError):
        guides.guide({"$ref": url})
