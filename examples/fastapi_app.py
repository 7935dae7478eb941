"""A FastAPI application: `ostler fastapi_app:app --app-dir examples --workers 4`, with fastapi installed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, dict[int, str]]]:
    """Open the resources that requests need; each request has them in `request.state`."""
    yield {"horses": {1: "Bayard", 2: "Rosinante", 3: "Bucephalus"}}


app = FastAPI(title="The inn", lifespan=lifespan)


@app.get("/")
async def index() -> dict[str, str | int | None]:
    """Return the worker that answers."""
    return {"worker": os.environ.get("OSTLER_SLOT"), "pid": os.getpid()}


@app.get("/horses/{number}")
async def horse(number: int, request: Request) -> dict[str, str]:
    """Return a horse by its number, which FastAPI checks; 404 if there is no such horse."""
    try:
        return {"name": request.state.horses[number]}
    except KeyError:
        raise HTTPException(404, "no such horse") from None


@app.post("/echo")
async def echo(request: Request) -> StreamingResponse:
    """Send the body back while it arrives: it is never in memory as a whole."""
    return StreamingResponse(request.stream(), media_type="application/octet-stream")


@app.get("/ticks")
async def ticks(count: int = 5) -> StreamingResponse:
    """Send one line every tenth of a second."""

    async def lines() -> AsyncIterator[str]:
        for number in range(count):
            yield f"tick {number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")
