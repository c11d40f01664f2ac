"""Explains image classifiers where they run: saliency maps, and the evidence whether they can be believed.

``load()`` opens a net, and its methods do the rest: ``explain`` for pictures, ``attribute`` for normalised arrays,
``check`` and ``evaluate`` for trust. Verilume computes the net itself, so you set no hooks and open no ``with`` block.
``methods()`` lists the methods, ``help(verilume.methods)`` explains them.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from typing import Any

from . import _native
from ._errors import (
    CancelledError,
    DeviceError,
    FileError,
    InputError,
    KernelError,
    LimitError,
    ModelError,
    NoDeviceError,
    SettingsError,
    ShapeError,
    VerilumeError,
)
from ._model import Model, from_torch, load
from ._results import CheckResult, EvalResult, Explanation

__version__: str = _native.version

__all__ = [
    "CancelledError",
    "CheckResult",
    "DeviceError",
    "EvalResult",
    "Explanation",
    "FileError",
    "InputError",
    "KernelError",
    "LimitError",
    "Model",
    "ModelError",
    "NoDeviceError",
    "SettingsError",
    "ShapeError",
    "VerilumeError",
    "from_torch",
    "load",
    "methods",
    "metrics",
    "tests",
]


def methods() -> list[dict[str, Any]]:
    """The methods: ``id``, ``aliases``, ``title``, ``summary``, ``paper``, ``passes``, ``promises``, ``draws``, ``caution``,
    and ``parameters`` with ``key``, ``unit``, ``default`` and ``help``."""
    listed: list[dict[str, Any]] = json.loads(_native.methods())
    return listed


def metrics() -> list[dict[str, Any]]:
    """The metrics of ``evaluate``: ``id``, ``title``, ``summary``, ``paper``, ``outputs``, ``needs``, ``parameters``."""
    listed: list[dict[str, Any]] = json.loads(_native.metrics())
    return listed


def tests() -> list[dict[str, Any]]:
    """The tests of ``check``: ``id``, ``title``, ``question``, ``paper``, ``measure``, ``threshold``."""
    listed: list[dict[str, Any]] = json.loads(_native.tests())
    return listed


def _document() -> None:
    """What the registries say, for ``help``."""
    methods.__doc__ = f"{methods.__doc__}\n\n{_native.methods_text()}"
    known = {
        Model.explain: ("methods", methods()),
        Model.attribute: ("methods", methods()),
        Model.check: ("tests", tests()),
        Model.evaluate: ("metrics", metrics()),
    }
    for of, (kind, entries) in known.items():
        names = textwrap.fill(", ".join(entry["id"] for entry in entries), 110)
        of.__doc__ = f"{inspect.cleandoc(of.__doc__ or '')}\n\nThe {kind}, which verilume.{kind}() describes:\n{names}"


_document()
