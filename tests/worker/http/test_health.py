"""`--health-path`: probes are answered without the app."""

from __future__ import annotations

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import get, hello, opened, post, respond


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(f"the app was asked for {scope['path']}")


async def path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the method and path of the request."""
    await respond(send, f"{scope['method']} {scope['path']}".encode())


def test_a_probe_is_answered_without_the_app_and_leaves_no_trace(serve: Serve) -> None:
    server = serve(never, health_path="/healthz")
    client = server.connect()
    for _ in range(3):
        answer = client.ask(get("/healthz"))
        assert (answer.status, answer.body, answer.keeps) == (200, b"ready\n", True)
        assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert server.access.lines == []
    assert server.call(lambda: (server.server_state.served, server.server_state.in_flight)) == (0, 0)


def test_head_is_answered_without_a_body(serve: Serve) -> None:
    client = serve(never, health_path="/healthz").connect()
    answer = client.ask(get("/healthz", method="HEAD"), "HEAD")
    assert (answer.status, answer.get("content-length")) == (200, "6")
    assert client.ask(get("/healthz?from=probe")).body == b"ready\n"


def test_an_http_1_0_probe_is_answered_and_closed(serve: Serve) -> None:
    client = serve(never, health_path="/healthz").connect()
    answer = client.ask(get("/healthz", version="1.0"))
    assert (answer.status, answer.keeps) == (200, False)
    assert client.ended()


def test_an_absolute_target_is_the_same_path(serve: Serve) -> None:
    assert serve(never, health_path="/healthz").ask(get("http://a.example/healthz")).status == 200


def test_other_paths_and_methods_are_the_apps(serve: Serve) -> None:
    client = serve(path, health_path="/healthz").connect()
    assert client.ask(get("/healthz/more")).body == b"GET /healthz/more"
    assert client.ask(get("/health")).body == b"GET /health"
    assert client.ask(post("/healthz")).body == b"POST /healthz"


def test_without_the_setting_every_path_is_the_apps(serve: Serve) -> None:
    assert serve(path).ask(get("/healthz")).body == b"GET /healthz"


def test_an_instance_that_stops_answers_503_and_closes_its_connections(serve: Serve) -> None:
    server = serve(hello, health_path="/healthz")
    probe, other = server.connect(), server.connect()
    assert probe.ask(get("/healthz")).status == 200
    server.call(server.server_state.withdraw)
    answer = probe.ask(get("/healthz"))
    assert (answer.status, answer.body, answer.keeps) == (503, b"stopping\n", False)
    assert probe.ended()
    served = other.ask(get("/"))
    assert (served.status, served.body, served.keeps) == (200, b"hello", False)
    assert other.ended()


def test_a_worker_that_drains_for_its_successor_still_answers_probes_with_200(serve: Serve) -> None:
    server = serve(hello, health_path="/healthz")
    client = server.connect()
    assert client.ask(get("/healthz")).keeps
    server.call(server.server_state.drain)
    answer = client.ask(get("/healthz"))
    assert (answer.status, answer.keeps) == (200, False)
    assert client.ended()


def test_a_probe_is_answered_where_the_limit_of_concurrency_is_reached(serve: Serve) -> None:
    release: list[bool] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await opened(lambda: release)
        await respond(send, b"slow")

    server = serve(slow, health_path="/healthz", limit_concurrency=1)
    busy = server.connect()
    busy.send(get("/"))
    server.until(lambda: server.server_state.in_flight == 1)
    other = server.connect()
    assert other.ask(get("/healthz")).status == 200
    assert other.ask(get("/")).status == 503
    release.append(True)
    assert busy.answer().body == b"slow"
    assert server.errors.lines == ["Exceeded concurrency limit."]


def test_probes_in_a_pipeline_are_answered_in_order_however_many(serve: Serve) -> None:
    client = serve(path, health_path="/healthz").connect()
    count = 2000
    client.send(get("/first") + get("/healthz") * count + get("/last"))
    assert client.answer().body == b"GET /first"
    assert {client.answer().body for _ in range(count)} == {b"ready\n"}
    assert client.answer().body == b"GET /last"


def test_a_probe_whose_client_is_gone_does_no_harm(serve: Serve) -> None:
    server = serve(never, health_path="/healthz")
    client = server.connect()
    client.send(get("/healthz"))
    client.reset()
    server.until(lambda: not server.server_state.connections)
    half = server.connect()
    half.send(get("/healthz"))
    half.finish_sending()
    assert half.answer().status == 200
    assert half.ended()
    assert server.errors.lines == []


def test_the_body_of_a_probe_is_read_and_dropped(serve: Serve) -> None:
    client = serve(never, health_path="/healthz").connect()
    assert client.ask(get("/healthz", body=b"x" * 1000)).status == 200
    assert client.ask(get("/healthz")).status == 200
    waits = client.ask(get("/healthz", "Expect: 100-continue", "Content-Length: 5"))
    assert (waits.status, waits.keeps) == (200, False)
