"""`/metrics`: every recorded answer counts once, under OpenTelemetry's names, and nothing of a person."""

import httpx2
import pytest
from gateway_side import serving
from prometheus_client.parser import text_string_to_metric_families

from escultor.serve.auth import create
from escultor.serve.gateway.metrics import MAX_SKILLS, AnswerMetrics
from escultor.types import Alert, Estimate, Health, Scope

HELLO = {"model": "escultor", "messages": [{"role": "user", "content": "secret words"}]}


@pytest.fixture
def side(tmp_path):
    with serving(tmp_path, prices={"v1": (1.0, 2.0)}) as running:
        yield running


def samples(side, **options):
    text = httpx2.get(side.url + "/metrics", **options).raise_for_status().text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found, text


def of(found, name, **labels):
    wanted = set(labels.items())
    return sum(value for (n, has), value in found.items() if n == name and wanted <= has)


def test_answers_are_counted_whole_and_streamed(side):
    for body in (HELLO, {**HELLO, "user": "maria", "stream": True}, {**HELLO, "n": 2}):
        httpx2.post(side.url + "/v1/chat/completions", json=body).raise_for_status()
    found, text = samples(side)
    assert of(found, "escultor_answers_total", version="v1", arm="champion") == 4
    operation = {"gen_ai_operation_name": "chat", "gen_ai_response_model": "v1"}
    assert of(found, "gen_ai_server_request_duration_seconds_count", **operation) == 4
    assert of(found, "gen_ai_client_token_usage_count", **operation, gen_ai_token_type="output") == 4
    assert of(found, "escultor_cost_usd_total") > 0
    assert of(found, "escultor_deployment_share", version="v1") == 1
    assert "maria" not in text
    assert "secret" not in text


def test_alerts_show_as_the_monitor_recorded_them(side):
    import time

    now = time.time()
    estimate = Estimate("e", 0.5, 0.4, 0.6, 10)
    for k, state in enumerate(("firing", "resolved", "firing")):
        side.log.append(Alert(f"a{k}", now - 10 + k, "errors", state, estimate, 0.1, "text", "v1"))
    side.log.append(Alert("b", now - 5, "no_traffic", "resolved", estimate, 0.1, "text"))
    found, _ = samples(side)
    assert of(found, "escultor_alert_firing", rule="errors", version="v1") == 1
    assert of(found, "escultor_alert_firing", rule="no_traffic") == 0


def test_votes_show_as_the_monitor_recorded_them_lately(side):
    import time

    def recorded(value, n, until, version="v1"):
        share = Estimate("thumbs_down_share", value, value / 2, 2 * value, n)
        side.log.append(Health(version, until - 86_400, until, (share,)))

    now = time.time()
    recorded(0.4, 10, now - 9000)
    assert of(samples(side)[0], "escultor_votes", version="v1") == 0
    recorded(0.2, 50, now)
    recorded(0.9, 70, now, "v0")
    found, _ = samples(side)
    assert of(found, "escultor_votes") == 50
    shown = [of(found, "escultor_thumbs_down_share", bound=b) for b in ("value", "low", "high")]
    assert shown == [0.2, 0.1, 0.4]


def test_with_keys_it_needs_the_scope_read(side):
    infer, one = create("app", [Scope.INFER])
    read, two = create("prometheus", [Scope.READ])
    side.log.append(one, two)
    side.gateway._read_keys()
    assert httpx2.get(side.url + "/metrics").status_code == 401
    headers = {"authorization": f"Bearer {infer}"}
    assert httpx2.get(side.url + "/metrics", headers=headers).status_code == 403
    assert samples(side, headers={"authorization": f"Bearer {read}"})[0]


def test_names_of_skills_that_clients_make_up_are_bounded():
    metrics = AnswerMetrics()
    assert {metrics._skill(f"s{k}") for k in range(2 * MAX_SKILLS)} == {
        *(f"s{k}" for k in range(MAX_SKILLS)),
        "other",
    }
