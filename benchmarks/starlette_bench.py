"""The Starlette application for an import string; in its own module, so that the others need no Starlette."""

from benchmarks.apps import file_app

app = file_app()
