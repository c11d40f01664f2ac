"""What calls return: plain data, so that it can be pickled."""

from __future__ import annotations

import base64
import html
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from ._errors import SettingsError, VerilumeError, of

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from PIL.Image import Image


def _wanted(package: str, needs: str) -> SettingsError:
    return SettingsError(f"{needs} needs {package}, which is not installed: pip install {package}")


def _table(rows: list[dict[str, Any]], needs: str) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError as e:
        raise _wanted("pandas", needs) from e
    return pandas.DataFrame(rows)


def _img(pixels: npt.NDArray[np.uint8], alt: str) -> str:
    data = base64.b64encode(_native.png(pixels)).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _html_table(rows: list[dict[str, Any]], cells: tuple[str, ...]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in cells)
    lines = ["".join(f"<td>{html.escape(str(row.get(cell)))}</td>" for cell in cells) for row in rows]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


class Explanation:
    """The map of one class on one picture, or why there is none."""

    record: dict[str, Any]
    """The JSON record of the command line."""
    input: str
    """The picture's path or name."""
    method: str | None
    """The method's name."""
    target: int | None
    """The explained class."""
    label: str | None
    """The name of the class."""
    score: float | None
    """The class's score, of the kind that ``load`` was given."""
    prediction: list[dict[str, Any]]
    """The five most likely classes: ``index``, ``label``, ``score``."""
    gap: dict[str, Any] | None
    """By how much the map misses the method's promise: ``promise``, ``value`` (in units of the score), ``relative``."""
    shares: dict[str, float] | None
    """Where the score went, for methods that share it out: ``input``, ``bias``, ``lost``."""
    view: npt.NDArray[np.uint8] | None
    """The part of the picture that the net saw, ``[H, W, 3]``; ``None`` for what cannot be drawn."""
    sign: str | None
    """``signed``: positive values speak for the class, negative ones against it. ``unsigned``: only the size counts.
    ``relative``: only differences between positions count."""
    error: VerilumeError | None
    """The error, if the map could not be computed."""

    def __init__(
        self,
        record: str,
        kind: str | None,
        map: npt.NDArray[np.float32] | None,
        view: npt.NDArray[np.uint8] | None,
        sign: str | None,
    ) -> None:
        self.record = json.loads(record)
        self.input = self.record["input"]
        self.method = self.record["method"]
        self.target = self.record["target"]
        self.label = self.record["target_label"]
        self.score = self.record["score"]
        self.prediction = self.record["prediction"]
        self.gap = self.record["gap"]
        self.shares = self.record.get("shares")
        self.view = view
        self.sign = sign
        self.error = None if kind is None else of(kind, str(self.record["error"]))
        self._map = map

    @property
    def map(self) -> npt.NDArray[np.float32]:
        """The raw map, ``[C, H, W]`` or ``[H, W]``, with its sign; never rescaled. Raises ``error`` if there is none."""
        if self._map is None:
            raise self.error if self.error is not None else VerilumeError("the map could not be computed")
        return self._map

    def cam01(self) -> npt.NDArray[np.float32]:
        """One number a pixel, ``[H, W]`` from 0 to 1, as pytorch-grad-cam's ``show_cam_on_image`` takes it.

        Channels are summed. Of a signed map the part that speaks for the class counts.
        """
        plane = self.map if self.map.ndim == 2 else self.map.sum(axis=0)
        if self.sign == "signed":
            plane = np.maximum(plane, 0)
        low, high = float(plane.min()), float(plane.max())
        scaled = (plane - low) / (high - low) if high > low else np.zeros_like(plane)
        return np.asarray(scaled, dtype=np.float32)

    def _drawn(self, winsorise: float | None) -> npt.NDArray[np.uint8]:
        map = np.ascontiguousarray(self.map)
        return _native.draw(map, self.sign or "relative", self.view, winsorise)

    def overlay(self, *, winsorise: float | None = None) -> Image:
        """The map in colour over the picture, as ``verilume explain`` draws it: a picture of Pillow.

        ``winsorise`` is the percentile of the magnitude that gets the strongest colour (99.5 if not given).
        """
        try:
            from PIL import Image
        except ImportError as e:
            raise _wanted("pillow", "overlay") from e
        return Image.fromarray(self._drawn(winsorise))

    def plot(self, ax: Axes | None = None, *, winsorise: float | None = None) -> Axes:
        """Draws the overlay on an axis of matplotlib (a new one if not given) and returns it."""
        try:
            from matplotlib import pyplot
        except ImportError as e:
            raise _wanted("matplotlib", "plot") from e
        axes: Axes = pyplot.subplots()[1] if ax is None else ax
        axes.imshow(self._drawn(winsorise))
        axes.set_title(self._caption())
        axes.set_axis_off()
        return axes

    def _caption(self) -> str:
        return f"{self.method}: {self.label if self.label is not None else self.target}"

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Explanation of {self.input}: {type(self.error).__name__}: {self.error}>"
        return f"<Explanation of {self.input}: {self._caption()}, score {self.score:.4f}, map {list(self.map.shape)}>"

    def _repr_html_(self) -> str:
        if self.error is not None:
            return f"<pre>{html.escape(repr(self))}</pre>"
        pictures = [] if self.view is None else [_img(self.view, self.input)]
        pictures.append(_img(self._drawn(None), self._caption()))
        return f"<figure>{''.join(pictures)}<figcaption>{html.escape(repr(self)[1:-1])}</figcaption></figure>"


class CheckResult:
    """The verdicts of tests of trust."""

    report: dict[str, Any]
    """The report, as ``verilume check`` writes it into ``check.json``."""

    def __init__(self, report: str, page: bytes) -> None:
        self.report = json.loads(report)
        self._page = page

    @property
    def findings(self) -> list[dict[str, Any]]:
        """One finding for each picture, method and test, with the picture's name as ``input``."""
        pictures: list[dict[str, Any]] = self.report["pictures"]
        return [{"input": picture["input"], **finding} for picture in pictures for finding in picture["findings"]]

    @property
    def errors(self) -> dict[str, str]:
        """Why pictures could not be checked, by name."""
        return {p["input"]: p["error"] for p in self.report["pictures"] if p["error"] is not None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as one page (``.html``) or as JSON (``.json``)."""
        name = os.fspath(path)
        kind = os.path.splitext(name)[1].lower()
        if kind in (".html", ".htm"):
            data = self._page
        elif kind == ".json":
            data = (json.dumps(self.report, indent=2, ensure_ascii=False) + "\n").encode()
        else:
            raise SettingsError(f"{name}: a report is saved as .html or .json")
        try:
            with open(name, "wb") as file:
                file.write(data)
        except OSError as e:
            raise of("io", f"{name}: {e.strerror}") from e

    def to_pandas(self) -> pandas.DataFrame:
        """``findings`` as a table."""
        return _table(self.findings, "to_pandas")

    def __repr__(self) -> str:
        verdicts = [finding["verdict"] for finding in self.findings]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        return f"<CheckResult of {len(self.report['pictures'])} pictures: {counts or 'no findings'}>"

    def _repr_html_(self) -> str:
        return _html_table(self.findings, ("input", "method", "test", "verdict", "value", "detail"))


class EvalResult:
    """How good methods are on labelled pictures."""

    summary: dict[str, Any]
    """The summary, as ``verilume eval`` writes it into ``summary.json``."""
    pictures: list[dict[str, Any]]
    """The measurements of each picture, as lines of ``eval.jsonl``."""

    def __init__(self, summary: str, lines: list[str], names: dict[str, str]) -> None:
        self.summary = json.loads(summary)
        self.summary["data"] = list(names.values())
        self.pictures = [json.loads(line) for line in lines]
        for picture in self.pictures:
            picture["input"] = names.get(os.path.basename(picture["input"]), picture["input"])

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The net's accuracy (``method`` is ``None``), then the mean of each output of each metric for each method, with
        its bootstrap interval ``low`` to ``high``."""
        return [_score(score) for score in self.summary["scores"]]

    def to_pandas(self) -> pandas.DataFrame:
        """``scores`` as a table."""
        return _table(self.scores, "to_pandas")

    def __repr__(self) -> str:
        methods = ", ".join(m["id"] for m in self.summary["methods"])
        return f"<EvalResult of {methods} on {len(self.pictures)} pictures>"

    def _repr_html_(self) -> str:
        return _html_table(self.scores, ("method", "output", "better", "mean", "low", "high", "n", "failed"))


def _score(score: dict[str, Any]) -> dict[str, Any]:
    estimate = score["estimate"] or {}
    kept = ("method", "metric", "output", "better", "mean", "n", "failed")
    return {**{key: score[key] for key in kept}, "low": estimate.get("low"), "high": estimate.get("high")}
