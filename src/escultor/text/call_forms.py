"""The forms in which families of models write one call of a tool, between the marks around it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from escultor.strict_json import strict_loads

_NAMED = re.compile(  # a name, marks, and the arguments in JSON: Mistral, Kimi-K2, DeepSeek, gpt-oss
    r"\s*+(?:function<｜tool▁sep｜>|functions\.)?(?P<name>[\w.-]++)(?::\d++)?\s*+"
    r"(?:\[CALL_ID\]\w++)?(?:\[ARGS\]|<｜tool▁sep｜>|<\|tool_call_argument_begin\|>"
    r"|(?:<\|channel\|>\w++)?\s*+(?:<\|constrain\|>)?\s*+(?:json|code)?\s*+<\|message\|>)?"
    r"\s*+(?:```json\s)?(?P<arguments>\{)"
)
_FUNCTION = re.compile(r"\s*+<function=([^>]++)>")  # Qwen3-Coder and Qwen3.5, Nemotron-3
# A value ends before the next beginning of one: what never ends is looked through once.
_PARAMETER = re.compile(r"<parameter=([^>]++)>\n?((?:[^<]|<(?!/?parameter[=>]))*)</parameter>")
_GLM_NAME = re.compile(r"\s*+([\w.-]++)\s*+(?:<arg_key>|$)")  # GLM-4.5
_GLM = re.compile(
    r"<arg_key>((?:[^<]|<(?!/?arg_key>))*)</arg_key>\s*+<arg_value>((?:[^<]|<(?!/?arg_value>))*)</arg_value>"
)
_MAX_PYTHON = 1 << 16  # characters of calls in Python's form
_DECODER = json.JSONDecoder()
WrittenCall = tuple[str, Any]  # name and arguments: an object, or its JSON text


def read_calls(body: str, types: Mapping[str, Mapping[str, Any]]) -> list[WrittenCall]:
    """The calls that a text holds and nothing else; none for another text. `types` holds by name of a tool
    the types of its parameters, by which values that are not in JSON are read."""
    for form in (_json, _named, _markup, _python):
        try:
            if calls := form(body, types):
                return calls
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return []


def _json(body: str, _: object) -> list[WrittenCall]:
    parsed = strict_loads(body)
    calls: list[WrittenCall] = []
    for each in parsed if isinstance(parsed, list) else [parsed]:
        key = next((k for k in ("arguments", "parameters") if isinstance(each, dict) and k in each), None)
        if key is None or not isinstance(each.get("name"), str):
            return []
        calls.append((each["name"], each[key]))
    return calls


def _named(body: str, _: object) -> list[WrittenCall]:
    found = _NAMED.match(body)
    if found is None:
        return []
    _, end = _DECODER.raw_decode(body, start := found.start("arguments"))
    rest = body[end:].strip().strip("`").strip()
    return [] if rest else [(found["name"], strict_loads(body[start:end]))]


def _markup(body: str, types: Mapping[str, Mapping[str, Any]]) -> list[WrittenCall]:
    """Names and values in tags."""
    for match, values in ((_FUNCTION.match, _PARAMETER), (_GLM_NAME.match, _GLM)):
        if found := match(body):
            own = types.get(found[1].strip(), {})
            pairs = [(key.strip(), said.removesuffix("\n")) for key, said in values.findall(body)]
            return [(found[1].strip(), {key: _typed(said, own.get(key)) for key, said in pairs})]
    return []


def _typed(text: str, kind: Any) -> Any:
    """A value that is written without quotes."""
    if kind == "string":
        return text
    try:
        return strict_loads(text)
    except ValueError:
        return text


def _python(body: str, _: object) -> list[WrittenCall]:
    """A list of calls as Python writes them: Llama 4, LFM2."""
    if not body.lstrip().startswith("[") or len(body) > _MAX_PYTHON:
        return []
    tree = ast.parse(body.strip(), mode="eval").body
    calls: list[WrittenCall] = []
    for each in tree.elts if isinstance(tree, ast.List) else []:
        if not isinstance(each, ast.Call) or each.args:
            return []
        values = {word.arg: ast.literal_eval(word.value) for word in each.keywords if word.arg}
        calls.append((ast.unparse(each.func), json.loads(json.dumps(values, allow_nan=False))))
    return calls
