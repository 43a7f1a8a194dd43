"""`escultor`, with a probe in the gateway's event loop: how long was it held up at most?

    python bench/loop_probe.py FILE serve --store STORE

`FILE` is JSON of the worst since it was last removed: `late_ms`, by which the loop came too late; `cpu_ms`,
the processor time that the gateway used meanwhile; and `held_ms`, the smaller of the two. On a machine that
does other work too, the loop is late because nobody ran it: what the gateway can be blamed for is `held_ms`
at most.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from escultor.cli.app import main
from escultor.serve.gateway.gateway import Gateway

EVERY_S = 0.005


async def _watch(path: Path) -> None:
    worst = {"held_ms": 0.0}
    while True:
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(EVERY_S)
        late, cpu = time.perf_counter() - began - EVERY_S, time.process_time() - used
        if not path.exists():  # whoever reads it begins anew by removing it
            worst = {"held_ms": 0.0}
        if 1000 * min(late, cpu) > worst["held_ms"]:
            measured = {"held_ms": min(late, cpu), "late_ms": late, "cpu_ms": cpu}
            worst = {name: round(1000 * seconds, 1) for name, seconds in measured.items()}
            path.write_text(json.dumps(worst))


def probe(path: Path) -> None:
    """Let every gateway of this process begin to be watched when it has started."""
    start, watchers = Gateway.start, []

    async def watched(gateway: Gateway) -> None:
        await start(gateway)
        watchers.append(asyncio.create_task(_watch(path)))

    Gateway.start = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    probe(Path(sys.argv.pop(1)))
    main()
