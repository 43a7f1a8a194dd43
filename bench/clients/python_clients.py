"""The Python side of the matrix of clients: every client does every feature that it has.

    python bench/clients/python_clients.py URL KEY [FEATURE …]

Runs in an environment of its own (`requirements.txt`), without the project. Prints one JSON object a line:
the client, its version, the feature, and what came of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
import traceback
import warnings
from typing import Any

from agent_clients import Instructor, LmEval, OpenAIAgents, OpenAIAgentsResponses, PydanticAI
from client import Client
from framework_clients import (
    LangChain,
    LangChainAnthropic,
    LangChainResponses,
    LiteLLM,
    LiteLLMAnthropic,
    LlamaIndex,
)
from official_clients import Anthropic, OpenAIChat, OpenAIResponses

FEATURES = (
    "plain",
    "stream",
    "tools",
    "tools_streamed",
    "parallel",
    "structured",
    "reasoning",
    "picture",
    "error_401",
    "error_429",
    "feedback",
)
CLIENTS: dict[str, type[Client]] = {
    "openai, chat completions": OpenAIChat,
    "openai, responses": OpenAIResponses,
    "anthropic": Anthropic,
    "LangChain ChatOpenAI": LangChain,
    "LangChain ChatOpenAI, responses": LangChainResponses,
    "LangChain ChatAnthropic": LangChainAnthropic,
    "LlamaIndex OpenAILike": LlamaIndex,
    "LiteLLM openai/": LiteLLM,
    "LiteLLM anthropic/": LiteLLMAnthropic,
    "instructor": Instructor,
    "Pydantic AI": PydanticAI,
    "OpenAI Agents, chat completions": OpenAIAgents,
    "OpenAI Agents, responses": OpenAIAgentsResponses,
    "lm-eval local-chat-completions": LmEval,
}


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["OPENAI_API_KEY"] = os.environ["ANTHROPIC_API_KEY"] = "unused"
    os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
    for name, kind in CLIENTS.items():
        version = f"{kind.package} {importlib.metadata.version(kind.package)}"
        for feature in sys.argv[3:] or FEATURES:
            if (method := getattr(kind, feature, None)) is None:
                continue
            row: dict[str, Any] = {"client": name, "version": version, "feature": feature}
            try:
                row["got"] = method(kind())
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:600]
                row["trace"] = traceback.format_exc()[-1500:]
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
