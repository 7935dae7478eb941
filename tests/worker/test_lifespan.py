"""The ASGI lifespan protocol."""

import asyncio
import logging
from typing import Any, Literal

import pytest

from ostler.errors import StartupError
from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.lifespan import Lifespan

Mode = Literal["auto", "on", "off"]


async def well_behaved(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "lifespan"
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["pool"] = "open"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    scope["state"]["pool"] = "closed"
    await send({"type": "lifespan.shutdown.complete"})


async def unaware(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("only http here")


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "Traceback ...\nOSError: no database\n"})
    raise OSError("no database")


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise OSError("cannot flush")


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    return


def run(app: Any, mode: Mode, caplog: pytest.LogCaptureFixture) -> Lifespan:
    caplog.set_level(logging.INFO, "ostler.error")

    async def whole() -> Lifespan:
        lifespan = Lifespan(app, mode)
        await lifespan.startup()
        await lifespan.shutdown()
        return lifespan

    return asyncio.run(asyncio.wait_for(whole(), 10))


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_start_up_and_shutdown_are_waited_for(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    assert run(well_behaved, mode, caplog).state == {"pool": "closed"}
    assert caplog.messages == [
        "Waiting for application startup.",
        "Application startup complete.",
        "Waiting for application shutdown.",
        "Application shutdown complete.",
    ]


def test_an_application_without_lifespan_is_served_in_mode_auto(caplog: pytest.LogCaptureFixture) -> None:
    run(unaware, "auto", caplog)
    assert "ASGI 'lifespan' protocol appears unsupported." in caplog.messages


def test_an_application_without_lifespan_fails_in_mode_on(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartupError, match="AssertionError: only http here"):
        run(unaware, "on", caplog)


def test_mode_off_sends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run(unaware, "off", caplog)
    assert caplog.messages == []


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_refused_start_up_is_reported_with_its_last_line(
    mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StartupError, match=r"application startup failed: OSError: no database$"):
        run(refusing, mode, caplog)
    assert sum("no database" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_failing_shutdown_is_logged(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    run(failing_late, mode, caplog)
    assert "Application shutdown failed. Exiting." in caplog.messages


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_an_application_that_just_returns_is_served(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    run(returning, mode, caplog)
    assert caplog.messages[-2:] == ["Waiting for application shutdown.", "Application shutdown complete."]


def test_a_shutdown_that_the_application_reports_as_failed_is_logged_with_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})

    run(app, "auto", caplog)
    assert caplog.messages[2:] == [
        "Waiting for application shutdown.",
        "cannot flush",
        "Application shutdown failed. Exiting.",
    ]


def test_an_application_that_is_cancelled_while_it_serves_may_report_a_failed_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        except asyncio.CancelledError:
            await send({"type": "lifespan.shutdown.failed", "message": "cut off"})
            raise

    async def main() -> None:
        lifespan = Lifespan(app, "auto")
        await lifespan.startup()
        await lifespan.cancel(10.0)

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert caplog.messages == ["Waiting for application startup.", "Application startup complete."]


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        ("startup", "lifespan.shutdown.complete"),
        ("startup", "http.response.start"),
        ("serving", "lifespan.startup.complete"),
        ("serving", "lifespan.shutdown.complete"),
        ("shutdown", "lifespan.startup.complete"),
    ],
)
def test_a_message_out_of_order_raises_in_the_application_and_names_the_phase(
    phase: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[str] = []

    async def whole() -> None:
        serving, said = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def misplaced(now: str) -> None:
                if now == phase:
                    try:
                        await send({"type": kind})
                    except RuntimeError as error:
                        raised.append(str(error))

            await receive()
            await misplaced("startup")
            await send({"type": "lifespan.startup.complete"})
            await serving.wait()
            await misplaced("serving")
            said.set()
            await receive()
            await misplaced("shutdown")
            await send({"type": "lifespan.shutdown.complete"})

        lifespan = Lifespan(app, "on")
        await lifespan.startup()
        serving.set()
        await said.wait()
        await lifespan.shutdown()

    asyncio.run(asyncio.wait_for(whole(), 10))
    assert raised == [f"lifespan message {kind!r} is out of order: the phase is {phase!r}"]
