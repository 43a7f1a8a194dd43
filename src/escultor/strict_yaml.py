"""YAML read strictly: plain values, each key once, a bounded depth, and no aliases that multiply.

PyYAML nests its calls as deep as the text, and a few lines of aliases (`a: &a [x, x]`, `b: &b [*a, *a]`, …)
stand for more values than any memory holds.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

MAX_DEPTH = 100
MAX_VALUES = 10_000_000  # with every alias written out
_BEGIN, _END = (
    (yaml.SequenceStartEvent, yaml.MappingStartEvent),
    (yaml.SequenceEndEvent, yaml.MappingEndEvent),
)


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            seen: set[str] = set()
            twice = sorted({key for key in keys if key in seen or seen.add(key)})
            raise yaml.YAMLError(f"duplicate keys: {', '.join(twice)} (from line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        value = self.construct_yaml_int(node)
        if abs(value) > sys.float_info.max:
            raise yaml.YAMLError(f"a number that no float holds (line {node.start_mark.line + 1})")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def load_yaml(text: str) -> Any:
    """The value of a YAML document. Raises YAMLError for what cannot be read."""
    _check_size(text)
    try:
        return yaml.load(text, _Loader)
    except ValueError as error:  # a date that is none, a number of too many digits
        raise yaml.YAMLError(str(error)) from error


def _check_size(text: str) -> None:
    """Raise YAMLError for a document nested too deep, or that stands for too many values."""
    sizes: dict[str, int] = {}  # values under each anchor
    open_at: list[tuple[str | None, int]] = []  # of each collection: its anchor, and the count at its start
    count = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        where = f"(line {event.start_mark.line + 1})"
        if isinstance(event, _END):
            anchor, start = open_at.pop()
            if anchor:
                sizes[anchor] = count - start
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_at):
                raise yaml.YAMLError(f"a value that holds itself {where}")
            count += sizes.get(event.anchor, 1)
        else:
            count += 1
        if isinstance(event, _BEGIN):
            open_at.append((event.anchor, count - 1))
        if len(open_at) > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} levels {where}")
        if count > MAX_VALUES:
            raise yaml.YAMLError(f"aliases for more than {MAX_VALUES:,} values {where}")
