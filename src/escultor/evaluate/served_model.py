"""A model behind an OpenAI-compatible server: its answers, and the likelihoods that it gives to texts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from escultor.data.row_messages import message_row
from escultor.errors import DataError, InputError, UpstreamFault
from escultor.text.tool_calls import written_call
from escultor.types import Messages, Sampling

TRIES = 4
WAIT_S = 0.5  # before the second try; doubled from try to try
RETRIED = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
CONCURRENCY = 8
MAX_STOPS = 4  # that OpenAI's servers accept
TOLERANCE = 1e-9  # within which two log-probs are equal

T = TypeVar("T")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server; requests are repeated where it fails, several at a time.

    `url` ends before /chat/completions; the key is sent in the header and appears nowhere else.
    """

    url: str
    key: str | None = None
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def post(self, path: str, bodies: Sequence[Any], parse: Callable[[Any], T]) -> list[T]:
        """The reply to each body, in their order, as `parse` reads it.

        Raises UpstreamFault when the server fails four times, refuses, or sends what `parse` does not accept
        (ValueError, KeyError, IndexError, TypeError).
        """
        with self._client() as client, ThreadPoolExecutor(CONCURRENCY) as pool:
            futures = [pool.submit(self._request, client, "POST", path, parse, body=body) for body in bodies]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def get(self, path: str, parse: Callable[[Any], T]) -> T:
        """The resource at a path, as `parse` reads it. Raises UpstreamFault in the same cases as `post`."""
        with self._client() as client:
            return self._request(client, "GET", path, parse)

    def _client(self) -> Any:
        import httpx2

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.Client(timeout=self.timeout_s, headers=headers)

    def _request(self, client: Any, method: str, path: str, parse: Callable[[Any], T], body: Any = None) -> T:
        import httpx2

        reason, url = "", f"{self.url.rstrip('/')}{path}"
        for attempt in range(TRIES):
            if attempt:
                self.sleep(WAIT_S * 2 ** (attempt - 1))
            try:
                response = client.request(method, url, json=body)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                allowed = "http://host:port/v1"
                raise InputError("this is no address of a server", self.url, allowed, str(error)) from error
            except httpx2.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if response.status_code not in RETRIED:
                return _parsed(response, url, parse)
            reason = f"status {response.status_code}"
        raise UpstreamFault(f"{url} failed {TRIES} times", reason, remedy="try again later")


def _parsed(response: Any, url: str, parse: Callable[[Any], T]) -> T:
    try:
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code}: {response.text[:200]}")
        return parse(response.json())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        what, remedy = f"{url} sent an unexpected reply", "check its address, model and key"
        raise UpstreamFault(what, f"{type(error).__name__}: {error}", "a completion", remedy) from error


class ServedAnswer(NamedTuple):
    """An answer (None: the server sent none), its tokens as the server counts them, and whether it was
    cut."""

    text: str | None
    tokens: int
    cut: bool


@dataclass(frozen=True)
class ServedModel:
    """`model` is the name that requests use; `version` what the server says it serves under that name; `file`
    the hash of the file that a server of our own has loaded, where it is one."""

    endpoint: Endpoint
    model: str
    version: str
    file: str | None = None

    @property
    def name(self) -> str:
        """The checkpoint name in scores: a served copy is not the checkpoint itself."""
        return self.file or f"{self.version} at {self.endpoint.url}"

    def answers(
        self,
        prompts: Sequence[Messages],
        samplings: Sequence[Sampling],
        tools: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
    ) -> list[ServedAnswer]:
        """One answer to each conversation, which the server is asked not to store. `tools`: the JSON text of
        each one's tools, whose calls are part of the answer's text. `schema`: the JSON schema that every
        answer has to follow (`response_format`). `stop`: texts to stop at, of which servers take four. Raises
        UpstreamFault."""
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        offered = [{"tools": json.loads(each)} if each else {} for each in tools or [""] * len(prompts)]
        bodies = [
            chat_body(self.model, prompt)
            | _parameters(sampling)
            | _stopping(stop)
            | each
            | ({} if schema is None else {"response_format": form})
            for prompt, sampling, each in zip(prompts, samplings, offered, strict=True)
        ]
        return self.endpoint.post("/chat/completions", bodies, _answer)

    def texts(
        self, contexts: Sequence[str], samplings: Sequence[Sampling], stops: Sequence[Sequence[str]]
    ) -> list[str | None]:
        """A continuation of each text; None where the server sent none. Raises UpstreamFault."""
        bodies = [
            {"model": self.model, "prompt": context, **_parameters(sampling), **_stopping(stop)}
            for context, sampling, stop in zip(contexts, samplings, stops, strict=True)
        ]
        return self.endpoint.post("/completions", bodies, _completion)

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """The log-probability of each continuation of a context, and whether each of its tokens was the most
        likely one. Raises UpstreamFault where the server does not score prompts."""
        common = {"model": self.model, "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True}

        def score(pairs: Sequence[tuple[str, str]]) -> list[list[_TokenScore]]:
            bodies = [{**common, "prompt": context + continuation} for context, continuation in pairs]
            return self.endpoint.post("/completions", bodies, _token_scores)

        # Without a context the first token has no score, unless the server puts a token before every text by
        # itself. Where it does not, an empty text is scored as that token, whose name is put there instead.
        bare = next((pair for pair in pairs if not pair[0]), None)
        if bare and (tokens := score([bare])[0]) and tokens[0].logprob is None:
            (name,) = self.endpoint.post("/completions", [{**common, "prompt": ""}], _first_token)
            pairs = [(context or name, continuation) for context, continuation in pairs]
        scored = score(pairs)
        return [_continuation_score(tokens, *pair) for tokens, pair in zip(scored, pairs, strict=True)]


def served_model(endpoint: Endpoint, model: str | None) -> ServedModel:
    """The model of this name on a server (None: the only one). Where the server states which version the name
    means, and serves that version by its own name, requests use the latter: no canary may answer a part of
    the items."""
    versions = endpoint.get("/models", _versions)
    if model is None and len(set(versions.values())) == 1:
        model = next(iter(versions))
    if model is None or model not in versions:
        known = ", ".join(sorted(versions)) or "none"
        raise DataError(f"{endpoint.url} serves no such model", model or "no name of several", known)
    version = versions[model]
    return ServedModel(endpoint, version if version in versions else model, version)


def chat_body(model: str, prompt: Messages) -> dict[str, Any]:
    """A chat request that the server is asked not to store, as held-out prompts must not be learnt from."""
    return {"model": model, "store": False, "messages": [message_row(message) for message in prompt]}


def chat_text(reply: Any) -> str:
    """The text of a chat reply; empty where it holds none, as of an answer that was filtered. Raises
    ValueError, KeyError, IndexError or TypeError for what is no chat reply."""
    return _text_or_none(_choice(reply).get("message") or {}, "content") or ""


def _parameters(sampling: Sampling) -> dict[str, Any]:
    drawing = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    return {"max_tokens": sampling.max_new_tokens, **drawing}


def _stopping(stop: Sequence[str]) -> dict[str, Any]:
    return {"stop": list(stop[:MAX_STOPS])} if stop else {}


def _versions(reply: Any) -> dict[str, str]:
    return {str(entry["id"]): str(entry.get("root") or entry["id"]) for entry in reply["data"]}


def _completion(reply: Any) -> str | None:
    return _text_or_none(_choice(reply), "text")


def _answer(reply: Any) -> ServedAnswer:
    choice = _choice(reply)
    message = choice.get("message") or {}
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    text = _text_or_none(message, "content")
    if calls:
        written = (written_call(str(call["name"]), _arguments(call.get("arguments"))) for call in calls)
        text = "".join((text or "", *written))
    return ServedAnswer(text, _completion_tokens(reply), choice.get("finish_reason") == "length")


def _choice(reply: Any) -> Mapping[str, Any]:
    """The only choice; empty where the server sent none, as of an answer that was filtered."""
    if "choices" not in reply:
        raise ValueError(f"no choices: {json.dumps(reply)[:200]}")
    return (reply["choices"] or [{}])[0] or {}


def _completion_tokens(reply: Mapping[str, Any]) -> int:
    """What the server counts, which it may leave out; 0 where it says no number."""
    usage = reply.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return int(tokens) if isinstance(tokens, int | float) and 0 <= tokens < float("inf") else 0


def _arguments(value: Any) -> str:
    """The JSON of a call's arguments; of a tool without any they may be left out."""
    return value if isinstance(value, str) else json.dumps({} if value is None else value, ensure_ascii=False)


def _text_or_none(fields: Mapping[str, Any], name: str) -> str | None:
    """A text that may be null or left out, as of an answer that was filtered."""
    return None if fields.get(name) is None else _text(fields[name])


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts, of which a picture or a thought is no text
        texts = (part.get("text") for part in value if part.get("type") in ("text", "output_text"))
        return "".join(_text(text) for text in texts if text is not None)
    if not isinstance(value, str):
        raise ValueError(f"text of type {type(value).__name__}")
    return value


class _TokenScore(NamedTuple):
    start: int  # of its text
    logprob: float | None
    highest: float  # log-prob of any token there


def _token_scores(reply: Any) -> list[_TokenScore]:
    logprobs = reply["choices"][0]["logprobs"]
    if not isinstance(logprobs, Mapping):
        raise ValueError("no log-probs: this server does not score prompts (echo and logprobs)")
    columns = logprobs["text_offset"], logprobs["token_logprobs"], logprobs["top_logprobs"]
    return [
        _TokenScore(int(start), logprob, max((top or {}).values(), default=-float("inf")))
        for start, logprob, top in zip(*columns, strict=True)
    ]


def _first_token(reply: Any) -> str:
    return _text(reply["choices"][0]["logprobs"]["tokens"][0])


def _continuation_score(tokens: Sequence[_TokenScore], context: str, continuation: str) -> tuple[float, bool]:
    """The score of the tokens that begin after the context; where there are none, of the last token, which
    begins in the context and ends after it. What was generated after both is left out."""
    inside = [t for t in tokens if t.start < len(context) + len(continuation)]
    own = [t for t in inside if t.start >= len(context)] or inside[-1:]
    scores = [(t.logprob, t.highest) for t in own if t.logprob is not None]
    if not own or len(scores) < len(own):
        what = "the server does not score the first token of a text"
        raise UpstreamFault(what, (context + continuation)[:80], remedy="evaluate the model itself")
    is_greedy = all(logprob >= highest - TOLERANCE for logprob, highest in scores)
    return sum(logprob for logprob, _ in scores), is_greedy
