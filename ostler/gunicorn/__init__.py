"""Worker classes for gunicorn: `gunicorn -k ostler.gunicorn.Worker main:app`."""

from ostler.gunicorn.worker import H11Worker as H11Worker
from ostler.gunicorn.worker import Worker as Worker
