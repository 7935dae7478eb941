"""The list of behaviours, a module for each topic."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Import every topic, which adds its behaviours to the list."""
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
