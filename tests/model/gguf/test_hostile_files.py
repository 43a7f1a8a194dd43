"""Damaged, truncated and lying GGUF files are refused in plain words."""

import contextlib
import struct

import numpy as np
import pytest
from gguf import GGUFWriter
from gguf_models import byte_level, model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escultor.errors import ModelError
from escultor.model.gguf.header import read_header
from escultor.model.gguf.reader import import_gguf_file
from escultor.model.gguf.vocabulary import read_tokenizer
from escultor.model.gguf.writer import export_gguf_file


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "good.gguf"
    loaded = model("llama", byte_level(size=270))
    export_gguf_file(loaded, path, "q8_0", "tiny", (loaded.tokenizer.eos_token_id,))
    return path


def header(*parts: bytes, tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)


def text(value: str, claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if claimed is None else claimed) + value.encode()


BAD = {
    "empty": b"",
    "no GGUF": b"PK\x03\x04" + bytes(64),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "version 1": header(version=1),
    "2^60 tensors": header(tensors=1 << 60),
    "2^60 keys": header(keys=1 << 60),
    "a key of 2^63 bytes": header(text("a", 1 << 63), keys=1),
    "an array of 2^60 numbers": header(text("a"), struct.pack("<IIQ", 9, 4, 1 << 60), keys=1),
    "an array of 2^60 texts": header(text("a"), struct.pack("<IIQ", 9, 8, 1 << 60), keys=1),
    "arrays in arrays": header(text("a"), struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000, keys=1),
    "an unknown kind of value": header(text("a"), struct.pack("<I", 77), keys=1),
    "one key twice": header(*[text("a") + struct.pack("<IB", 0, 1)] * 2, keys=2),
    "a text that is not UTF-8": header(text("a"), struct.pack("<IQ", 8, 2) + b"\xff\xfe", keys=1),
    "alignment 3": header(text("general.alignment"), struct.pack("<II", 4, 3), keys=1),
    "a part of several": header(text("split.count"), struct.pack("<IH", 2, 4), keys=1),
    "17 dimensions": header(text("t"), struct.pack("<I17QIQ", 17, *[1] * 17, 0, 0), tensors=1),
    "a tensor of 2^80 numbers": header(
        text("t"), struct.pack("<I2QIQ", 2, 1 << 40, 1 << 40, 0, 0), tensors=1
    ),
    "a tensor beyond the file": header(text("t"), struct.pack("<IQIQ", 1, 8, 0, 1 << 50), tensors=1),
    "an unknown type": header(text("t"), struct.pack("<IQIQ", 1, 8, 999, 0), tensors=1),
    "half a block": header(text("t"), struct.pack("<IQIQ", 1, 16, 8, 0), bytes(256), tensors=1),
    "two on one place": header(
        *[text(name) + struct.pack("<IQIQ", 1, 8, 0, 0) for name in "ab"], bytes(256), tensors=2
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_file_is_refused(tmp_path, name):
    path = tmp_path / "bad.gguf"
    path.write_bytes(BAD[name])
    with pytest.raises(ModelError):
        read_header(path)


def test_a_truncated_file_is_refused_and_leaves_nothing(good, tmp_path):
    data = good.read_bytes()
    for size in np.linspace(0, len(data) - 64, 25).astype(int):
        (tmp_path / "cut.gguf").write_bytes(data[:size])
        with pytest.raises(ModelError) as caught:
            import_gguf_file(tmp_path / "cut.gguf", tmp_path / "made")
        assert str(caught.value).count("remedy:") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cut.gguf"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 20_000), value=st.binary(min_size=1, max_size=8))
def test_changed_bytes_of_a_header_are_read_or_refused(good, tmp_path, at, value):
    data = bytearray(good.read_bytes())
    data[at : at + len(value)] = value
    path = tmp_path / "changed.gguf"
    path.write_bytes(data)
    with contextlib.suppress(ModelError):
        read_tokenizer(read_header(path))


def changed(path, changes: dict, drop: tuple[str, ...] = (), extra: tuple[str, ...] = ()):
    """A copy of a file with other metadata, and with tensors left out or added."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    writer = GGUFWriter(path.with_name("changed.gguf"), "llama")
    fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    fields.pop("general.architecture")
    from escultor.model.gguf.writer import _add

    if "general.architecture" in changes:
        writer.arch = changes["general.architecture"]
        writer.kv_data[0].clear()
        writer.add_architecture()
    for key, value in (fields | changes).items():
        if key != "general.architecture" and value is not None:
            _add(writer, key, value)
    for tensor in reader.tensors:
        if tensor.name not in drop:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name in extra:
        writer.add_tensor(name, np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name("changed.gguf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general.architecture": "mamba"}, "mamba"),
        ({"llama.expert_count": 8}, "mixtures of experts"),
        ({"llama.attention.head_count": 0}, "head_count"),
        ({"llama.attention.head_count": "four"}, "another type"),
        ({"llama.block_count": 3}, "missing"),
        ({"llama.block_count": 1 << 30}, "too many layers"),
        ({"llama.embedding_length": 1 << 30}, "shape"),
        ({"llama.rope.scaling.type": "dynamic"}, "dynamic"),
        ({"llama.rope.freq_base": float("nan")}, "freq_base"),
        ({"llama.attention.value_length": 8}, "different size"),
        ({"tokenizer.ggml.model": "bert"}, "bert"),
        ({"tokenizer.ggml.pre": "made-up"}, "made-up"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "one twice"),
        ({"tokenizer.ggml.token_type": [1]}, "differ in number"),
        ({"tokenizer.ggml.merges": ["zz qq"]}, "merge"),
        ({"tokenizer.chat_template": 5}, "another type"),
    ],
)
def test_what_cannot_be_imported_is_named(good, tmp_path, changes, said):
    with pytest.raises(ModelError, match=said):
        import_gguf_file(changed(good, changes), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_tensors_that_are_missing_or_left_over_are_named(good, tmp_path):
    with pytest.raises(ModelError, match="ffn_up"):
        import_gguf_file(changed(good, {}, drop=("blk.1.ffn_up.weight",)), tmp_path / "made")
    with pytest.raises(ModelError, match="attn_sinks"):
        import_gguf_file(changed(good, {}, extra=("blk.0.attn_sinks.weight",)), tmp_path / "made")
