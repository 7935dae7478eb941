"""Imports the object that an import string names, such as `main:app`."""

from __future__ import annotations

import importlib
from typing import Any

from ostler.errors import StartupError


def import_from_string(text: str) -> Any:
    """Return the object that `module:attribute` names; the attribute may be dotted.

    Raises:
        StartupError: there is no such module or attribute.
        Exception: whatever the module itself raises while it is imported.
    """
    module_name, _, attributes = text.partition(":")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # Where the module imports one that is missing, the error is the application's own, with traceback.
        missing = exc.name
        if missing is None or not (module_name == missing or module_name.startswith(f"{missing}.")):
            raise
        raise StartupError(
            f'Could not import module "{module_name}": there is no such module in the working directory, '
            "--app-dir or the environment"
        ) from None
    try:
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AttributeError:
        raise StartupError(f'Attribute "{attributes}" not found in module "{module_name}"') from None
    return found
