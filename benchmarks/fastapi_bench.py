"""The FastAPI application for an import string; a module of its own, so that the others need no FastAPI."""

from benchmarks.apps import fastapi_app

app = fastapi_app()
