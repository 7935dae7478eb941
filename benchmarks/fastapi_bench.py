"""The FastAPI application as an import string: its own module, so that the others need no FastAPI."""

from benchmarks.apps import fastapi_app

app = fastapi_app()
