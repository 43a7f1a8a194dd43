"""Which upstreams answer for a model name (`serve.models`): exact names first, then patterns in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from escultor.config import Serve
from escultor.config.serving import upstream_version
from escultor.serve.deployments import EngineHandle, EnginePick
from escultor.serve.engines.upstream.engine import UpstreamEngine, open_upstream
from escultor.serve.engines.upstream.fallback import FallbackEngine

ROUTED = "route"  # the arm of answers of these upstreams: they take part in no trial


class ModelRoutes:
    """The upstreams that have a name, and the model names that they answer for. Belongs to one event loop."""

    def __init__(self, settings: Serve, environ: Mapping[str, str]):
        """Raises ConfigError as `open_upstream`."""
        self._settings = settings
        self.upstreams = {
            name: open_upstream(each, environ, upstream_version(name, each))
            for name, each in settings.upstreams.items()
        }
        self._handles = {
            pattern: EngineHandle(FallbackEngine([self.upstreams[name] for name in names]))
            for pattern, names in settings.models.items()
        }

    def pick(self, model: str) -> EnginePick | None:
        """The engine for a model name; None where the table has none."""
        pattern = self._settings.pattern_of(model)
        return None if pattern is None else EnginePick(self._handles[pattern], ROUTED, 1.0)

    def models(self) -> dict[str, str]:
        """The model names that are given in full, and the version that each means first."""
        return {name: each.version for name, each in self._handles.items() if "*" not in name}

    async def close(self) -> None:
        """Close every upstream once no request uses it."""
        await asyncio.gather(*(each.close() for each in self._handles.values()))
        await asyncio.gather(*(each.close() for each in self.upstreams.values()))


async def check_upstreams(upstreams: list[UpstreamEngine]) -> None:
    """See which upstreams accept connections."""
    await asyncio.gather(*(each.check() for each in upstreams))
