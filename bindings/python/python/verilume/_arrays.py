"""Arrays of other libraries, by the DLPack protocol, without importing these libraries."""

from __future__ import annotations

import operator
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import InputError

# Devices of the DLPack protocol whose memory the CPU reads: the CPU's own, and pinned memory of CUDA and ROCm.
_ON_CPU = (1, 3, 11)


def numbers(x: Any, what: str = "x") -> npt.NDArray[Any]:
    """``x`` as an array of float32 or float64 in C order; copied only where it is not one already."""
    array = as_array(x, what)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what}: numbers are wanted, not {array.dtype}")
    if array.dtype == np.uint8:
        raise InputError(f"{what}: these are levels (uint8), and normalised numbers are wanted; explain takes pictures")
    # Whole numbers beyond 16 bits do not fit single precision. What double precision does not hold becomes infinite, which
    # is refused.
    single = np.result_type(array.dtype, np.float32) == np.float32
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32 if single else np.float64)


def as_array(x: Any, what: str) -> npt.NDArray[Any]:
    """``x`` as an array of NumPy; not copied where that can be."""
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{what}: the mask of the array would be lost; give {what}.filled(…)")
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    if not hasattr(x, "__dlpack__"):
        try:
            return np.asarray(x, dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise InputError(f"{what}: {type(x).__name__} is not an array") from e
    try:
        device = int(x.__dlpack_device__()[0])
        if device in _ON_CPU:
            if getattr(x, "requires_grad", False):
                # Tensors that require gradients are not exported; maps have no gradients.
                x = x.detach()
            if hasattr(x, "resolve_neg"):
                # The numbers of a tensor that is negated only when it is read would be exported with the other sign.
                x = x.resolve_neg()
            return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as e:
        raise InputError(f"{what}: {type(x).__name__} of {getattr(x, 'dtype', 'its type')} cannot be read: {e}") from e
    raise InputError(f"{what}: the array is on a device, {_place(x)}; give {what}.cpu()")


def _place(x: Any) -> str:
    return str(getattr(x, "device", "not in the memory of the CPU"))


def like(x: Any, array: npt.NDArray[Any]) -> Any:
    """``array`` in the library of ``x``, sharing its memory; NumPy's own where ``x`` is a list or an array of NumPy."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return array
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(array)
    # Classes of others are made of those of the library.
    libraries = (sys.modules[cls.__module__.partition(".")[0]] for cls in type(x).__mro__)
    return next(library for library in libraries if hasattr(library, "from_dlpack")).from_dlpack(array)


def indices(target: Any, n: int) -> list[int] | None:
    """One class for each of ``n`` inputs; ``None`` for the most likely ones."""
    if target is None:
        return None
    if hasattr(target, "tolist"):
        target = target.tolist()
    each: list[Any] = list(target) if isinstance(target, (list, tuple)) else [target] * n
    if len(each) != n:
        raise InputError(f"target: every input needs one class: {n} inputs, {len(each)} classes")
    return [index(one) for one in each]


def index(one: Any) -> int:
    """The index of a class; a truth value is none."""
    try:
        number = operator.index(one)
    except TypeError as e:
        raise InputError(f"target: the index of a class is wanted, not {one!r}") from e
    if isinstance(one, (bool, np.bool_)) or not 0 <= number < 1 << 63:
        raise InputError(f"target: {one!r} is not the index of a class")
    return number
