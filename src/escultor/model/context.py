"""How long a sequence a model takes."""

from __future__ import annotations

from typing import Any

NO_LIMIT = 1 << 30  # a length in tokens that no text has


def context_length(model: Any) -> int | None:
    """The most tokens that `model` takes in one sequence, prompt and answer together.

    None: its configuration names no limit, as those of models without learnt or scaled positions.
    """
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length and length > 0 else None
