"""FastAPI, Starlette and Django applications, served by two workers, with httpx and curl as clients."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live.clients import curl
from tests.live.harness import serving

FASTAPI = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request
from pydantic import BaseModel

@asynccontextmanager
async def lifespan(app):
    yield {"greeting": "hello"}

app = FastAPI(lifespan=lifespan)

class Item(BaseModel):
    name: str
    price: float

@app.get("/")
async def root(request: Request):
    return {"greeting": request.state.greeting, "client": request.client.host, "scheme": request.url.scheme}

@app.post("/items")
def create(item: Item):
    return {"name": item.name, "total": item.price * 2}
"""

STARLETTE = """
import asyncio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

async def stream(request):
    async def parts():
        for number in range(50):
            yield f"{number}\\n" * 1000
            await asyncio.sleep(0)  # in the app
    return StreamingResponse(parts(), media_type="text/plain")

async def upload(request):
    size = 0
    async for part in request.stream():
        size += len(part)
    return PlainTextResponse(str(size))

app = Starlette(routes=[Route("/stream", stream), Route("/upload", upload, methods=["POST"])])
"""

DJANGO = """
import os
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

settings.configure(SECRET_KEY="test", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False)

async def hello(request):
    return HttpResponse(f"hello {request.GET['name']}")

def sums(request):
    return JsonResponse({"sum": sum(map(int, request.body.split()))})

urlpatterns = [path("hello", hello), path("sums", sums)]
app = get_asgi_application()
"""


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The base URL of the application whose source is the parameter."""
    (tmp_path / "main.py").write_text(request.param)
    # The frameworks emit warnings of their own, which the tests must not turn into errors.
    with serving(tmp_path, "--workers", "2", env={"PYTHONWARNINGS": "default"}) as ostler:
        yield f"http://127.0.0.1:{ostler.port}"
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


@pytest.mark.parametrize("served", [FASTAPI], indirect=True, ids=["fastapi"])
def test_fastapi_has_lifespan_state_validation_threads_and_forwarded_headers(served: str) -> None:
    with httpx.Client(base_url=served, trust_env=False) as client:
        assert client.get("/").json() == {"greeting": "hello", "client": "127.0.0.1", "scheme": "http"}
        assert client.post("/items", json={"name": "oats", "price": 2.5}).json() == {
            "name": "oats",
            "total": 5.0,
        }
        assert client.post("/items", json={"name": "oats"}).status_code == 422
        assert client.get("/openapi.json").json()["info"]["title"] == "FastAPI"
        forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        assert client.get("/", headers=forwarded).json() == {
            "greeting": "hello",
            "client": "203.0.113.9",
            "scheme": "https",
        }
    assert '"greeting":"hello"' in curl(served)
    assert curl(
        "-X",
        "POST",
        "-H",
        "content-type: application/json",
        "-d",
        '{"name":"a","price":1}',
        f"{served}/items",
    )


@pytest.mark.parametrize("served", [STARLETTE], indirect=True, ids=["starlette"])
def test_starlette_streams_requests_and_responses(served: str) -> None:
    expected = "".join(f"{number}\n" * 1000 for number in range(50))
    with httpx.Client(base_url=served, trust_env=False) as client:
        with client.stream("GET", "/stream") as response:
            assert response.headers["transfer-encoding"] == "chunked"
            assert "".join(response.iter_text()) == expected
        parts = (b"x" * 10_000 for _ in range(100))
        assert client.post("/upload", content=parts).text == "1000000"
    assert curl(f"{served}/stream") == expected
    assert curl("--http1.0", f"{served}/stream") == expected
    # curl offers HTTP/2 by an upgrade in the first request, and waits for 100-continue in the second.
    assert curl("--http2", "-T", __file__, "-X", "POST", f"{served}/upload") == str(
        Path(__file__).stat().st_size
    )
    assert curl("-H", "Expect: 100-continue", "--data-binary", "abc", f"{served}/upload") == "3"


@pytest.mark.parametrize("served", [DJANGO], indirect=True, ids=["django"])
def test_django_answers_async_and_sync_views(served: str) -> None:
    with httpx.Client(base_url=served, trust_env=False) as client:
        assert client.get("/hello", params={"name": "ü"}).text == "hello ü"
        assert client.post("/sums", content=b"1 2 3").json() == {"sum": 6}
        assert client.get("/nowhere").status_code == 404
    assert curl(f"{served}/hello?name=curl") == "hello curl"
