# pyright: strict
"""A program that uses all of the package, for type checkers; the tests run it too."""

from __future__ import annotations

import pathlib
import pickle
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import verilume


def main(picture: str) -> None:
    """Uses all of it."""
    model: verilume.Model = verilume.load(threads=1, device="cpu", memory="2GiB", score="logit")
    e: verilume.Explanation = model.explain(picture, "smoothgrad", n=2, seed=1)
    map: npt.NDArray[np.float32] = e.map
    target: int | None = e.target
    label: str | None = e.label
    score: float | None = e.score
    gap: dict[str, Any] | None = e.gap
    shares: dict[str, float] | None = e.shares
    record: dict[str, Any] = e.record
    cam: npt.NDArray[np.float32] = e.cam01()
    print(map.shape, target, label, score, gap, shares, record["method"], cam.max(), e.sign, e.prediction[0], e.input)
    made: list[verilume.Explanation] = model.explain([picture, "missing.png"], target=["tabby", 282], progress=False)
    error: verilume.VerilumeError | None = made[1].error
    print(error.kind if error is not None else "", made[0].view is not None)
    x = np.zeros((1, *model.input_shape), np.float32)
    print(model.attribute(x, target=[282], method="ig", steps=2).shape, model.logits(x).shape)
    report: verilume.CheckResult = model.check(picture, methods=["gradient"], tests=["picture_shift"])
    print(report.findings[0]["verdict"], report.errors)
    evaluated: verilume.EvalResult = model.evaluate([picture], [282], methods=["gradient"], metrics=["deletion:step=20%"])
    print(evaluated.scores[0]["mean"], evaluated.summary["kind"], len(evaluated.pictures))
    print(model.explain_func("gradient")(None, x, [282]).shape, model.device, model.assumed, model.warnings, model.name)
    print(len(verilume.methods()), len(verilume.metrics()), len(verilume.tests()), verilume.__version__, len(model.labels))
    try:
        verilume.load("missing.onnx")
    except OSError as why:
        print(isinstance(why, verilume.VerilumeError), why)
    with_others(model, e, report, evaluated)


def with_others(
    model: verilume.Model, e: verilume.Explanation, report: verilume.CheckResult, evaluated: verilume.EvalResult
) -> None:
    """What needs Pillow, matplotlib or pandas says so where they are missing."""
    uses: list[Callable[[], object]] = [
        lambda: e.overlay(winsorise=99).size,
        lambda: e.plot().get_title(),
        lambda: report.to_pandas().columns,
        lambda: evaluated.to_pandas().shape,
    ]
    for use in uses:
        try:
            print(use())
        except verilume.SettingsError as why:
            print(why)
    with tempfile.TemporaryDirectory() as folder:
        report.save(pathlib.Path(folder, "check.html"))
    again: verilume.Model = pickle.loads(pickle.dumps(model))
    several: list[verilume.Explanation] = again.explain(["missing.png"], "gradient", target=[1], strict=False)
    print(several[0].error, verilume.from_torch.__name__)


if __name__ == "__main__":
    main(sys.argv[1])
