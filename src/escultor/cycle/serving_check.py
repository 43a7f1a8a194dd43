"""Whether a model that something else serves is the model it was made of: its greedy answers, token by
token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from escultor.errors import ModelError
from escultor.evaluate.served_model import Endpoint, ServedModel, served_model
from escultor.model.agreement import MOST_GAP, MOST_GAP_NARROW, PROMPTS, TOKENS, AnswerGap, answer_gap
from escultor.types import Message, Role, Sampling

if TYPE_CHECKING:
    from escultor.model.gguf.llama_server import LlamaServer
    from escultor.model.loaded import Loaded


def check_server(loaded: Loaded, url: str, name: str | None, quant: str) -> list[AnswerGap]:
    """Ask an OpenAI-compatible server (`url` ends in /v1) for greedy answers and compare each with the
    model.

    name: of the model on the server, None for the only one. quant: the type of its weights, which says how
    much its answers may cost. Raises ModelError that shows each answer that does not fit, UpstreamFault.
    """
    endpoint = Endpoint(url, timeout_s=300.0)
    served = served_model(endpoint, name) if name else _only_model(endpoint)
    conversations = [(Message(Role.USER, text),) for text in PROMPTS]
    answers = served.answers(conversations, [Sampling(max_new_tokens=TOKENS)] * len(PROMPTS))
    gaps = []
    for text, conversation, answer in zip(PROMPTS, conversations, answers, strict=True):
        said = answer.text or ""
        whole = said.partition("\ufffd")[0]  # a token may be a part of a character
        ids = loaded.chat.text(whole)
        if not answer.cut and whole == said:
            ids = [*ids, loaded.chat.turn_end[-1]]
        gaps.append(answer_gap(loaded, text, loaded.chat.prompt(conversation), ids))
    refuse_gaps(gaps, MOST_GAP.get(quant, MOST_GAP_NARROW))
    return gaps


def check_llama_cpp(
    loaded: Loaded, server: LlamaServer, quant: str, prompts: Sequence[str] = PROMPTS
) -> list[AnswerGap]:
    """As `check_server`, for llama.cpp's server, which shows token ids: those of its prompts must be the
    model's.

    Raises ModelError for the first prompt that has others, and as `check_server`.
    """
    gaps = []
    for text in prompts:
        ours, theirs = loaded.chat.prompt((Message(Role.USER, text),)), server.chat_prompt(text)
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
            decode = loaded.tokenizer.decode
            what = f"llama.cpp makes another prompt of {text!r}: token {at} differs"
            raise ModelError(what, decode(theirs[at : at + 8]), decode(ours[at : at + 8]))
        gaps.append(answer_gap(loaded, text, ours, server.complete(ours, TOKENS)))
    refuse_gaps(gaps, MOST_GAP.get(quant, MOST_GAP_NARROW))
    return gaps


def refuse_gaps(gaps: Sequence[AnswerGap], most: float) -> None:
    """Raise ModelError where an answer has a token that the model finds much less likely than another."""
    bad = [gap for gap in gaps if not gap.gap <= most]
    if bad:
        shown = "; ".join(
            f"{g.prompt!r}: token {g.at} is {g.theirs!r}, not {g.ours!r} ({g.gap:.2f} nats off)" for g in bad
        )
        what = f"{len(bad)} of {len(gaps)} served answers are not the model's"
        remedy = "check the template and the stops of what serves it, or take wider weights (q8_0, f16)"
        raise ModelError(what, shown, f"at most {most} nats", remedy)


def _only_model(endpoint: Endpoint) -> ServedModel:
    names: Callable[[object], list[str]] = lambda reply: [str(m["id"]) for m in reply["data"]]  # type: ignore[index]  # noqa: E731
    return served_model(endpoint, endpoint.get("/models", names)[0])
