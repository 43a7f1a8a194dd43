"""Traces: each answer and rating reaches a collector, over failures and restarts, without its text."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from escultor.monitor import traces
from escultor.types import Rating
from tests.monitor.test_window import call

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")


@pytest.fixture
def collector():
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(server.status)
            self.end_headers()
            if server.status == 200:
                assert self.path == "/v1/traces"
                message = ExportTraceServiceRequest.FromString(data)
                server.spans += [s for r in message.resource_spans for c in r.scope_spans for s in c.spans]

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.status, server.spans = 200, []
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(item):
    return {a.key: a.value for a in item.attributes}


def test_answers_and_ratings_are_sent_once_and_a_refusal_is_made_up_for(store, collector):
    url = f"http://127.0.0.1:{collector.server_port}"
    store.log.append(call("before"))
    assert traces.export_new(store, url) == []
    store.log.append(
        call("a", latency=250.0), call("b", finish="error"), Rating("f", 12.0, "a", "s", "thumb", True)
    )
    collector.status = 400
    assert traces.export_new(store, url) == [f"{url}: traces were not taken"]
    collector.status = 200
    for _ in range(2):
        assert traces.export_new(store, url) == []
    first, failed, rated = collector.spans
    told = attributes(first)
    assert (first.name, first.end_time_unix_nano - first.start_time_unix_nano) == ("chat v1", 250_000_000)
    assert told["gen_ai.response.id"].string_value == "a"
    assert told["gen_ai.usage.output_tokens"].int_value == 5
    assert attributes(failed)["error.type"].string_value == "error"
    assert (rated.trace_id, rated.parent_span_id) == (first.trace_id, first.span_id)
    (result,) = rated.events
    assert result.name == "gen_ai.evaluation.result"
    assert attributes(result)["gen_ai.evaluation.score.value"].double_value == 1.0


def test_many_records_go_in_batches_and_none_is_passed_over(store, collector, monkeypatch):
    monkeypatch.setattr(traces, "BATCH", 4)
    url = f"http://127.0.0.1:{collector.server_port}"
    traces.export_new(store, url)
    for k in range(9):
        store.log.append(
            call(f"c{k}"), *(Rating(f"f{k}-{n}", 12.0, f"c{k}", f"s{n}", "thumb", True) for n in range(k % 3))
        )
    assert traces.export_new(store, url) == []
    assert len(collector.spans) == 9 + 9
    assert len({s.span_id for s in collector.spans}) == 18
