"""Data within the parts of messages (pictures, audio, files): kept apart from the conversation, once each.

In the log the data of a part is `media:` and the id of its `Media`. Nothing is ever fetched: a picture given
by its address stays an address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from escultor.ids import hash_bytes
from escultor.types import Media

LEAST = 1024  # characters; what is shorter stays where it is
REFERENCE = "media:"


class MediaBox:
    """The data taken out of the messages of one request, up to a limit."""

    def __init__(self, max_characters: int):
        self.media: dict[str, Media] = {}
        self.left_out = 0  # data that is beyond the limit
        self._room = max_characters

    def take(self, content: Any) -> tuple[Any, tuple[str, ...]]:
        """A content without its data, and the ids of what was taken out. Parts of text stay as they are."""
        ids: dict[str, None] = {}
        return self._taken(content, ids), tuple(ids)

    def _taken(self, value: Any, ids: dict[str, None]) -> Any:
        if isinstance(value, dict):
            if str(value.get("type")).endswith("text"):
                return value
            return {key: self._taken(each, ids) for key, each in value.items()}
        if isinstance(value, list):
            return [self._taken(each, ids) for each in value]
        if not isinstance(value, str) or len(value) < LEAST:
            return value
        id = hash_bytes(value.encode("utf-8", "surrogatepass"))
        if id not in self.media:
            if len(value) > self._room:
                self.left_out += 1
                return f"[{len(value)} characters, not kept]"
            self._room -= len(value)
            self.media[id] = Media(id, value)
        ids[id] = None
        return REFERENCE + id


def restored(content: Any, media: Mapping[str, str]) -> Any:
    """A content with its data back in place, as far as it is among `media`, texts by id."""
    if isinstance(content, dict):
        return {key: restored(each, media) for key, each in content.items()}
    if isinstance(content, list):
        return [restored(each, media) for each in content]
    if isinstance(content, str) and content.startswith(REFERENCE):
        return media.get(content.removeprefix(REFERENCE), content)
    return content
