"""llama.cpp's own server on a GGUF file, in a child process that ends with its parent.

The parent holds the child's standard input: when it closes, whatever the reason, the child ends. So no
server is left behind by a killed process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.request import Request, urlopen

from escultor.errors import ConfigError, ModelError, UpstreamFault

CONTEXT = 4096  # tokens of prompt and answer
TIMEOUT_S = 300.0


def has_llama_cpp() -> bool:
    """Whether a llama.cpp wheel is installed."""
    return find_spec("xllamacpp") is not None


@contextmanager
def llama_server(path: Path, context: int = CONTEXT) -> Iterator[LlamaServer]:
    """llama.cpp's server for a GGUF file on a free port of this machine, until the block ends.

    It answers one request at a time and keeps nothing of earlier ones, so that an answer depends on its
    request alone. Raises ConfigError where the wheel xllamacpp is not installed, ModelError where llama.cpp
    cannot load the file.
    """
    if not has_llama_cpp():
        what = "serving a GGUF file needs a llama.cpp wheel"
        raise ConfigError(what, "xllamacpp is not installed", remedy="pip install 'escultor[llamacpp]'")
    command = [sys.executable, "-m", __name__, str(path.absolute()), str(context)]
    with TemporaryFile() as log:  # not a pipe, which would be full one day
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            line = child.stdout.readline()  # type: ignore[union-attr]
            if not line.startswith(b"{"):
                child.kill()
                child.wait()
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()
                errors = [text for text in said if "error" in text.lower()] or said
                raise ModelError(
                    f"llama.cpp cannot load {path}", errors[0][:300] if errors else child.returncode
                )
            yield LlamaServer(json.loads(line)["url"])
        finally:
            child.kill()
            child.communicate()


class LlamaServer:
    """A running server: `url` is the root of its own protocol; OpenAI's is below `/v1`."""

    def __init__(self, url: str):
        self.url = url

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of texts, without BOS and without control tokens. Raises UpstreamFault."""
        return [self._post("/tokenize", {"content": t, "parse_special": False})["tokens"] for t in texts]

    def complete(self, prompt: Sequence[int], most: int) -> list[int]:
        """The ids of the greedy continuation of a prompt, at most so many, up to the end of the answer."""
        body = {"prompt": list(prompt), "n_predict": most, "temperature": 0, "return_tokens": True}
        return self._post("/completion", body | {"cache_prompt": False})["tokens"]

    def chat_prompt(self, text: str) -> list[int]:
        """The token ids that the server makes of a conversation of this one user message."""
        prompt = self._post("/apply-template", {"messages": [{"role": "user", "content": text}]})["prompt"]
        return self._post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})[
            "tokens"
        ]

    def _post(self, path: str, body: Any) -> Any:
        head = {"Content-Type": "application/json"}
        try:
            with urlopen(
                Request(self.url + path, json.dumps(body).encode(), head), timeout=TIMEOUT_S
            ) as reply:
                return json.load(reply)
        except (OSError, ValueError) as error:
            raise UpstreamFault("llama.cpp's server failed", error) from error


def _serve(path: str, context: int) -> None:
    """In the child: serve until standard input ends."""
    import xllamacpp as library

    xllamacpp: Any = library
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = context, 1, 0
    settings.warmup, settings.cache_prompt, settings.verbosity = False, False, 1
    # Its threads wait for one another in loops: more than there are free cores make it many times slower.
    settings.cpuparams.n_threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    server = xllamacpp.Server(settings)
    print(json.dumps({"url": server.listening_address}), flush=True)  # noqa: T201  the parent reads it
    sys.stdin.read()
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
