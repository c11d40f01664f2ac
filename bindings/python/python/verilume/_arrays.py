"""Arrays of other libraries, by the DLPack protocol, without importing these libraries."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import InputError

# Devices of the DLPack protocol whose memory the CPU reads: the CPU's own, and pinned memory of CUDA and ROCm.
_ON_CPU = (1, 3, 11)


def numbers(x: Any, what: str = "x") -> npt.NDArray[Any]:
    """``x`` as an array of float32 or float64 in C order; copied only where it is not one already."""
    array = _array(x, what)
    if array.dtype == np.float64:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what}: numbers are wanted, not {array.dtype}")
    if array.dtype == np.uint8:
        raise InputError(f"{what}: these are levels (uint8), and normalised numbers are wanted; explain takes pictures")
    return np.ascontiguousarray(array, dtype=np.float32)


def _array(x: Any, what: str) -> npt.NDArray[Any]:
    if isinstance(x, np.ndarray):
        return x
    if not hasattr(x, "__dlpack__"):
        try:
            return np.asarray(x, dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise InputError(f"{what}: {type(x).__name__} is not an array") from e
    device = x.__dlpack_device__()
    if int(device[0]) not in _ON_CPU:
        raise InputError(f"{what}: the array is on a device, {_place(x)}; give {what}.cpu()")
    if getattr(x, "requires_grad", False):
        # Tensors that require gradients are not exported; maps have no gradients.
        x = x.detach()
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError) as e:
        raise InputError(f"{what}: {type(x).__name__} of {getattr(x, 'dtype', 'its type')} cannot be read: {e}") from e


def _place(x: Any) -> str:
    return str(getattr(x, "device", "not in the memory of the CPU"))


def like(x: Any, array: npt.NDArray[Any]) -> Any:
    """``array`` in the library of ``x``, sharing its memory; NumPy's own where ``x`` is a list or an array of NumPy."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return array
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().from_dlpack(array)
    library = sys.modules[type(x).__module__.partition(".")[0]]
    return library.from_dlpack(array)


def indices(target: Any, n: int) -> list[int] | None:
    """One class for each of ``n`` inputs; ``None`` for the most likely ones."""
    if target is None:
        return None
    if hasattr(target, "tolist"):
        target = target.tolist()
    each = [target] * n if not isinstance(target, (list, tuple)) else list(target)
    if len(each) != n:
        raise InputError(f"target: every input needs one class: {n} inputs, {len(each)} classes")
    try:
        return [_index(one) for one in each]
    except TypeError as e:
        raise InputError(f"target: the index of a class is wanted, not {target!r}") from e


def _index(one: Any) -> int:
    import operator

    index = operator.index(one)
    if index < 0:
        raise InputError(f"target: {index} is not the index of a class")
    return index
