"""Exceptions: one class for each kind of the library's errors."""

from __future__ import annotations


class VerilumeError(Exception):
    """What went wrong, in the sentence of the command line.

    ``kind`` says who can fix it: ``input``, ``model``, ``settings``, ``shape``, ``limit``, ``no_device``, ``device``,
    ``kernel``, ``io`` or ``cancelled``. Each kind has a subclass, which is also a ``ValueError``, an ``OSError`` or a
    ``MemoryError``.
    """

    kind: str = ""


class InputError(VerilumeError, ValueError):
    """A picture, array or list is unusable."""

    kind = "input"


class ModelError(VerilumeError, ValueError):
    """A net's file is unusable."""

    kind = "model"


class SettingsError(VerilumeError, ValueError):
    """An option or parameter has no meaning here."""

    kind = "settings"


class ShapeError(VerilumeError, ValueError):
    """An option or parameter has no meaning for an input of this shape."""

    kind = "shape"


class LimitError(VerilumeError, MemoryError):
    """A limit of memory or of a picture's size would be exceeded."""

    kind = "limit"


class NoDeviceError(VerilumeError, OSError):
    """This machine has no such device."""

    kind = "no_device"


class DeviceError(VerilumeError, OSError):
    """A device failed while running."""

    kind = "device"


class KernelError(VerilumeError, OSError):
    """A kernel did not compile; the sentence holds the compiler's log."""

    kind = "kernel"


class FileError(VerilumeError, OSError):
    """A file cannot be read or written."""

    kind = "io"


class CancelledError(VerilumeError, InterruptedError):
    """The work was asked to stop."""

    kind = "cancelled"


_BY_KIND: dict[str, type[VerilumeError]] = {
    cls.kind: cls
    for cls in (
        InputError,
        ModelError,
        SettingsError,
        ShapeError,
        LimitError,
        NoDeviceError,
        DeviceError,
        KernelError,
        FileError,
        CancelledError,
    )
}


def of(kind: str, sentence: str) -> VerilumeError:
    """The exception of this kind."""
    return _BY_KIND[kind](sentence)
