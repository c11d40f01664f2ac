"""The native part of the package; its names may change."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Given = tuple[str, npt.NDArray[np.uint8] | None, str | None]
_Row = tuple[str, str | None, npt.NDArray[np.float32] | None, npt.NDArray[np.uint8] | None, str | None]
_Progress = Callable[[str, Any], None]

version: str

def program(words: Sequence[str]) -> int: ...
def methods() -> str: ...
def methods_text() -> str: ...
def metrics() -> str: ...
def tests() -> str: ...
def draw(
    map: npt.NDArray[np.float32], sign: str, view: npt.NDArray[np.uint8] | None, winsorise: float | None
) -> npt.NDArray[np.uint8]: ...
def png(view: npt.NDArray[np.uint8]) -> bytes: ...

class Net:
    def __new__(cls, options: Sequence[str]) -> Net: ...
    def about(self) -> tuple[str, str, str, list[str], list[int]]: ...
    def said(self) -> tuple[list[str], list[str]]: ...
    def device(self) -> tuple[str, str | None]: ...
    def idle(self) -> int: ...
    def explain(
        self,
        given: Sequence[_Given],
        method: Sequence[str],
        targets: Sequence[str],
        how: tuple[int, bool],
        progress: _Progress | None,
    ) -> list[_Row]: ...
    def attribute(
        self,
        x: npt.NDArray[Any],
        classes: Sequence[int] | None,
        method: str,
        seed: int,
        progress: _Progress | None,
    ) -> npt.NDArray[Any]: ...
    def logits(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]: ...
    def check(
        self,
        given: Sequence[_Given],
        asked: tuple[Sequence[str], Sequence[str]],
        seed: int,
        command: str,
        progress: _Progress | None,
    ) -> tuple[str, bytes]: ...
    def evaluate(
        self,
        data: Sequence[str],
        files: tuple[str | None, str],
        asked: tuple[Sequence[str], Sequence[str]],
        how: tuple[bool, int],
        progress: _Progress | None,
    ) -> tuple[str, list[str]]: ...
