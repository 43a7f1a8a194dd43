"""The route `/metrics`: what a gateway counted since it started and what it is now, for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import time

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.openapi import route
from escultor.types import Alert, Health, Scope

router = APIRouter()
_OPTIONS = route(None, (401, 403, 500, 503))
_OPTIONS["responses"][200] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HEALTH_S = 3600.0  # a monitor that looks more seldom leaves no figure between
ALERTS_S = 28 * 86_400.0  # alerts that last changed before this are over


@router.get("/metrics", **_OPTIONS)
async def metrics(request: Request) -> Response:
    """What this gateway counted since it started, in Prometheus' text format. Needs the scope `read`."""
    gateway: Gateway = request.app.state.gateway
    gateway.authenticate(request.scope["headers"], Scope.READ)
    alerts, healths = await asyncio.to_thread(lambda: (_alerts(gateway), _healths(gateway)))
    state = CollectorRegistry()
    state.register(GatewayState(gateway, alerts, healths))
    text = generate_latest(gateway.request_log.metrics.registry) + generate_latest(state)
    return Response(text, headers={"content-type": CONTENT_TYPE})


def _alerts(gateway: Gateway) -> list[Alert]:
    """The last change of every alert rule."""
    read = gateway.store.log.read(Alert, since=time() - ALERTS_S)
    return [*{(alert.rule, alert.version): alert for _, alert in read}.values()]


def _healths(gateway: Gateway) -> list[Health]:
    """What the monitor last recorded, within `HEALTH_S`, of each version that may answer."""
    versions = {*gateway.deployments.active.engines, *(each.version for each in gateway.upstreams)}
    found = (gateway.store.log.last(Health, version) for version in sorted(versions))
    return [health for health in found if health is not None and health.until >= time() - HEALTH_S]


class GatewayState(Collector):
    """What the gateway is at the moment it is asked, read from where it is kept."""

    def __init__(self, gateway: Gateway, alerts: Iterable[Alert], healths: Iterable[Health]):
        self._gateway, self._alerts, self._healths = gateway, alerts, healths

    def collect(self) -> Iterable[Metric]:
        """The figures of `/health`, and alerts and votes as the monitor last recorded them."""
        gateway = self._gateway
        active = gateway.deployments.active
        figures = {
            "in_flight": ("Answers in progress", sum(h.in_flight for h in active.engines.values())),
            "waiting_writes": ("Records that wait for the disk", gateway.writer.waiting),
            "failed_writes": ("Records that could not be written", gateway.writer.failed),
            "unlogged_answers": ("Answers without a row", gateway.request_log.unlogged),
            "shadows_left_out": ("Shadow answers left out for lack of capacity", gateway.shadows_left_out),
            "engines_died": ("Engines that answered no more", gateway.deployments.restarts.died),
            "engines_reopened": ("Engines opened again", gateway.deployments.restarts.restarted),
        }
        for name, (text, value) in figures.items():
            yield GaugeMetricFamily(f"escultor_{name}", text, value=float(value))
        up = GaugeMetricFamily("escultor_upstream_up", "1: it accepts connections", labels=["upstream"])
        for upstream in gateway.upstreams:
            up.add_metric([upstream.version], 0.0 if upstream.trouble else 1.0)
        yield up
        share = GaugeMetricFamily("escultor_deployment_share", "Share of traffic", labels=["version"])
        for version, value in active.deployment.shares.items():
            share.add_metric([version], value)
        yield share
        aliases = {name: str(version) for name, version in active.deployment.aliases.items()}
        yield InfoMetricFamily("escultor_deployment", "The deployment in force", value=aliases)
        firing = GaugeMetricFamily("escultor_alert_firing", "1: it fires", labels=["rule", "version"])
        for alert in self._alerts:
            firing.add_metric([alert.rule, alert.version], float(alert.state == "firing"))
        yield firing
        text = "Thumbs down of the votes on a day's answers, with the 95 % interval"
        down = GaugeMetricFamily("escultor_thumbs_down_share", text, labels=["version", "bound"])
        votes = GaugeMetricFamily("escultor_votes", "Votes on a day's answers", labels=["version"])
        for health in self._healths:
            for estimate in health.estimates:
                if estimate.name == "thumbs_down_share":
                    votes.add_metric([health.version], float(estimate.n))
                    for bound in ("value", "low", "high") if estimate.n else ():
                        down.add_metric([health.version, bound], getattr(estimate, bound))
        yield from (down, votes)
