"""ostler under gunicorn: the worker classes `ostler.gunicorn.Worker` and `H11Worker`."""

from ostler.gunicorn.worker import H11Worker as H11Worker
from ostler.gunicorn.worker import Worker as Worker
