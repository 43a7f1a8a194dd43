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
from escultor.types import Alert, Scope

router = APIRouter()
_OPTIONS = route(None, (401, 403, 500, 503))
_OPTIONS["responses"][200] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ALERTS_S = 28 * 86_400.0  # alerts that last changed before this are over


@router.get("/metrics", **_OPTIONS)
async def metrics(request: Request) -> Response:
    """What this gateway counted since it started, in Prometheus' text format. Needs the scope `read`."""
    gateway: Gateway = request.app.state.gateway
    gateway.authenticate(request.scope["headers"], Scope.READ)
    alerts = await asyncio.to_thread(_alerts, gateway)
    state = CollectorRegistry()
    state.register(GatewayState(gateway, alerts))
    text = generate_latest(gateway.request_log.metrics.registry) + generate_latest(state)
    return Response(text, headers={"content-type": CONTENT_TYPE})


def _alerts(gateway: Gateway) -> list[Alert]:
    """The last change of every alert rule."""
    read = gateway.store.log.read(Alert, since=time() - ALERTS_S)
    return [*{(alert.rule, alert.version): alert for _, alert in read}.values()]


class GatewayState(Collector):
    """What the gateway is at the moment it is asked, read from where it is kept."""

    def __init__(self, gateway: Gateway, alerts: Iterable[Alert]):
        self._gateway, self._alerts = gateway, alerts

    def collect(self) -> Iterable[Metric]:
        """The figures of `/health`, and the alerts as the monitor last recorded them."""
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
