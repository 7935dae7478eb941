"""Logging: formatters and a handler that a log configuration may name, and how the log is set up."""

from ostler.logging.formatters import ACCESS_FORMAT as ACCESS_FORMAT
from ostler.logging.formatters import ACCESS_LOGGER as ACCESS_LOGGER
from ostler.logging.formatters import DEFAULT_FORMAT as DEFAULT_FORMAT
from ostler.logging.formatters import TRACE as TRACE
from ostler.logging.formatters import AccessFormatter as AccessFormatter
from ostler.logging.formatters import DefaultFormatter as DefaultFormatter
from ostler.logging.formatters import JsonFormatter as JsonFormatter
from ostler.logging.line_handler import LineHandler as LineHandler
