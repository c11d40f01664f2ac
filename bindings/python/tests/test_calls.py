"""What surrounds a call: errors, threads, processes, signals, pickling, the other commands."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from conftest import CAT, ROOT

import verilume


def test_errors_have_a_kind_and_a_usual_class(model: verilume.Model, tmp_path: pathlib.Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    cases: list[tuple[Any, str, type[Exception], str]] = [
        (lambda: model.explain("missing.png"), "io", OSError, "missing.png"),
        (lambda: model.explain(np.zeros((3, 3), np.float32)), "input", ValueError, "uint8"),
        (lambda: model.explain(CAT, "no_such"), "settings", ValueError, "no_such"),
        (lambda: model.explain(CAT, "ig:steps=x"), "settings", ValueError, "steps"),
        (lambda: model.explain(CAT, steps=3), "settings", ValueError, "steps"),
        (lambda: model.explain(CAT, target="no such class"), "settings", ValueError, "no such class"),
        (lambda: model.explain(CAT, target=1000), "settings", ValueError, "1000"),
        (lambda: model.explain(CAT, target="top:3"), "settings", ValueError, "top:3"),
        (lambda: model.explain([CAT], target=[1, 2]), "input", ValueError, "1 pictures, 2 classes"),
        (lambda: model.attribute(np.zeros((1, 4, 8, 8))), "input", ValueError, "input 0"),
        (lambda: model.attribute(np.full((1, 3, 224, 224), np.nan)), "input", ValueError, "NaN"),
        (lambda: model.attribute(np.zeros((1, 3, 224, 224)), 1000), "settings", ValueError, "1000"),
        (lambda: model.attribute(np.zeros((1, 3, 8, 8), np.uint8)), "input", ValueError, "uint8"),
        (lambda: model.attribute(3.0), "input", ValueError, "shape []"),
        (lambda: model.attribute(object()), "input", ValueError, "object"),
        (lambda: verilume.load(broken), "model", ValueError, "broken"),
        (lambda: verilume.load("no-such-net.onnx"), "io", OSError, "no-such-net.onnx"),
        (lambda: verilume.load(tmp_path, labels="no-such.txt"), "model", ValueError, str(tmp_path.name)),
        (lambda: verilume.load(labels="no-such.txt"), "io", OSError, "no-such.txt"),
        (lambda: verilume.load(device="tpu"), "settings", ValueError, "tpu"),
        (lambda: verilume.load(memory="3 parsecs"), "settings", ValueError, "parsecs"),
        (lambda: verilume.load(mean=[1.0, 2.0]), "settings", ValueError, "3 channels"),
        (lambda: verilume.load(memory="1MiB", threads=1).explain(CAT), "limit", MemoryError, "1.0 MiB"),
        (lambda: verilume.load(example=np.zeros(1)), "settings", ValueError, "example"),
        (lambda: verilume.load(object()), "input", ValueError, "object"),
        (lambda: model.check(CAT, ["gradient"], tests=["no_such"]), "settings", ValueError, "no_such"),
        (lambda: model.explain(CAT, "gradient", seed=-1), "settings", ValueError, "seed"),
    ]
    for call, kind, usual, named in cases:
        with pytest.raises(verilume.VerilumeError) as caught:
            call()
        assert (caught.value.kind, named in str(caught.value)) == (kind, True), caught.value
        assert isinstance(caught.value, usual)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again), again.kind) == (type(caught.value), str(caught.value), kind)


def test_a_bad_picture_of_a_list_is_an_entry(model: verilume.Model) -> None:
    pictures = [CAT, "missing.png", 7, CAT]
    made = model.explain(pictures, "gradient", progress=False)
    assert [e.error is None for e in made] == [True, False, False, True]
    assert isinstance(made[1].error, OSError)
    assert isinstance(made[2].error, ValueError)
    assert made[1].record["input"] == "missing.png"
    assert made[1].record["error"] == str(made[1].error)
    with pytest.raises(OSError, match="missing.png"):
        _ = made[1].map
    assert "missing.png" in made[1]._repr_html_()
    with pytest.raises(OSError, match="missing.png"):
        model.explain(pictures, "gradient", strict=True)
    assert model.explain([], "gradient") == []


def test_threads_have_engines_of_their_own(small: verilume.Model, inputs: Any) -> None:
    want = small.attribute(inputs, method="smoothgrad:n=8").tobytes()
    got: list[bytes] = []
    gate = threading.Barrier(3)

    def work() -> None:
        gate.wait()
        got.extend(small.attribute(inputs, method="smoothgrad:n=8").tobytes() for _ in range(4))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [want] * 12
    assert 2 <= small._net.idle() <= 4


def test_the_interpreter_is_free_during_a_call(model: verilume.Model) -> None:
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    model.explain(CAT, "smoothgrad:n=20")
    done.set()
    thread.join()
    assert ticks > 10


def _in_child(model: verilume.Model, x: Any, results: Any) -> None:
    results.put((model.attribute(x).tobytes(), model._net.idle()))


def test_a_forked_process_makes_engines_of_its_own(inputs: Any) -> None:
    model = verilume.load(ROOT / "tests" / "zoo" / "hf-resnet.17.onnx", threads=2, device="cpu")
    want = model.attribute(inputs).tobytes()
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    children = [fork.Process(target=_in_child, args=(model, inputs, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=120) for _ in children] == [(want, 1)] * 2
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert model.attribute(inputs).tobytes() == want


def test_workers_of_a_data_loader(small: verilume.Model, inputs: Any) -> None:
    torch = pytest.importorskip("torch")

    class Maps(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        """Computes a map where an item is asked for."""

        def __len__(self) -> int:
            return len(inputs)

        def __getitem__(self, at: int) -> Any:
            return small.attribute(torch.from_numpy(inputs[at : at + 1]), 0)[0]

    want = small.attribute(torch.from_numpy(inputs), 0)
    loader = torch.utils.data.DataLoader(Maps(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=120)
    assert torch.equal(torch.cat(list(loader)), want)


def test_models_are_pickled_by_their_arguments(inputs: Any) -> None:
    model = verilume.load(
        ROOT / "tests" / "zoo" / "hf-resnet.17.onnx", threads=1, mean=0.5, labels=["no", "yes"] + [f"x{i}" for i in range(5)]
    )
    data = pickle.dumps(model)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert again.labels == model.labels
    assert again.labels[1] == "yes"
    assert again.attribute(inputs).tobytes() == model.attribute(inputs).tobytes()


INTERRUPTED = """
import sys, time, verilume
model = verilume.load(threads=1, device="cpu")
model.explain(sys.argv[1], "gradient")
print("ready", flush=True)
try:
    model.explain(sys.argv[1], "smoothgrad:n=100000")
except KeyboardInterrupt:
    print("stopped", flush=True)
model.explain(sys.argv[1], "gradient")
print("goes on", flush=True)
"""


def test_ctrl_c_stops_a_call() -> None:
    # Shells make programs in the background ignore the signal, and children inherit that.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    words = [sys.executable, "-c", INTERRUPTED, str(CAT)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(1)
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        late = threading.Timer(60, child.kill)
        late.daemon = True
        late.start()
        assert child.stdout.readline() == "stopped\n"
        assert time.monotonic() - sent < 5
        assert child.stdout.readline() == "goes on\n"
    assert child.returncode == 0


def test_checks(model: verilume.Model, tmp_path: pathlib.Path, command: Any) -> None:
    made = model.check(CAT, ["gradient", "grad_cam"], tests=["picture_shift"])
    words = ["check", CAT, "-m", "gradient", "-m", "grad_cam", "--tests", "picture_shift", "--threads", 1, "--device", "cpu"]
    assert command(*words, "-o", tmp_path).returncode == 0
    want = json.loads((tmp_path / "check.json").read_text())
    assert made.findings == [{"input": str(CAT), **f} for f in want["pictures"][0]["findings"]]
    assert len(made.findings) == 2
    made.save(tmp_path / "own.json")
    assert json.loads((tmp_path / "own.json").read_text()) == made.report
    made.save(tmp_path / "own.html")
    pictures = [re.findall('src="(data:image/[^"]+)"', (tmp_path / name).read_text()) for name in ("own.html", "check.html")]
    assert pictures[0] == pictures[1] != []
    with pytest.raises(verilume.SettingsError, match="own.txt"):
        made.save(tmp_path / "own.txt")
    with pytest.raises(OSError, match="no-such"):
        made.save(tmp_path / "no-such" / "own.html")
    assert "<table>" in made._repr_html_()
    assert model.check(["missing.png"], ["gradient"], tests=["picture_shift"]).errors.keys() == {"missing.png"}


def test_evaluations(small: verilume.Model) -> None:
    levels = np.random.default_rng(2).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    metrics = ["deletion:step=20%"]
    made = small.evaluate([CAT, levels], ["class 1", 2], methods=["gradient", "grad_cam"], metrics=metrics)
    assert [p["input"] for p in made.pictures] == [str(CAT), "picture 1"]
    assert [p["label"] for p in made.pictures] == [1, 2]
    assert made.pictures[0]["correct"] is (made.pictures[0]["prediction"] == 1)
    accuracy, *scores = made.scores
    assert (accuracy["output"], accuracy["n"]) == ("accuracy", 2)
    assert {s["method"] for s in scores} == {"gradient", "grad_cam"}
    assert all(s["low"] <= s["mean"] <= s["high"] for s in scores if s["n"] == 2)
    assert "gradient, grad_cam" in repr(made)
    assert made._repr_html_().count("<tr>") == 1 + len(made.scores)
    unlabelled = small.evaluate([CAT], methods=["gradient"], metrics=metrics)
    assert unlabelled.scores[1]["mean"] == made.pictures[0]["methods"]["gradient"]["readings"][scores[0]["output"]]
    with pytest.raises(verilume.InputError, match="1 pictures, 2 classes"):
        small.evaluate([CAT], [1, 2], methods=["gradient"], metrics=metrics)


def test_tables_of_pandas(small: verilume.Model) -> None:
    pandas = pytest.importorskip("pandas")
    scored = small.evaluate([CAT], methods=["gradient"], metrics=["deletion:step=20%"])
    checked = small.check(CAT, ["gradient"], tests=["picture_shift"])
    for table, rows in [(scored.to_pandas(), scored.scores), (checked.to_pandas(), checked.findings)]:
        assert isinstance(table, pandas.DataFrame)
        assert (list(table.columns), len(table)) == (list(rows[0]), len(rows))


def test_registries() -> None:
    methods = {m["id"]: m for m in verilume.methods()}
    assert {"gradient", "integrated_gradients", "lrp", "grad_cam"} <= methods.keys()
    assert methods["integrated_gradients"]["promises"]
    assert any(p["key"] == "steps" for p in methods["integrated_gradients"]["parameters"])
    assert all(m["outputs"] for m in verilume.metrics())
    assert all(t["question"] for t in verilume.tests())
    assert verilume.methods.__doc__ is not None
    assert all(name in verilume.methods.__doc__ for name in methods)
    for of, entries in [
        (verilume.Model.explain, verilume.methods()),
        (verilume.Model.check, verilume.tests()),
        (verilume.Model.evaluate, verilume.metrics()),
    ]:
        assert of.__doc__ is not None
        assert all(entry["id"] in of.__doc__ for entry in entries)


def test_progress(small: verilume.Model, capfd: Any) -> None:
    pytest.importorskip("tqdm")
    pictures = [np.zeros((8, 8, 3), np.uint8)] * 9
    small.explain(pictures, "gradient", progress=True)
    assert "9/9" in capfd.readouterr().err
    small.explain(pictures, "gradient")
    assert capfd.readouterr().err == ""


def test_the_program(command: Any) -> None:
    done = command("model", "info", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "efficientnet-lite0"
    assert command("explain").returncode == 2
    assert command("explain", "missing.png").returncode == 2
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"verilume {verilume.__version__}\n")
    entry = os.path.join(os.path.dirname(sys.executable), "verilume")
    if os.path.exists(entry):
        assert subprocess.run([entry, "--version"], capture_output=True, text=True).stdout == done.stdout


def test_modules_of_torch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    x = torch.randn(2, 3, 16, 16)
    model = verilume.from_torch(module, x, threads=1, precision="f64", device="cpu")
    assert module.training
    module.eval()
    np.testing.assert_allclose(model.logits(x), module(x).detach().numpy(), atol=1e-5)
    leaf = x.double().requires_grad_()
    module.double()(leaf)[:, 2].sum().backward()
    assert leaf.grad is not None
    got = model.attribute(x.double(), 2, "gradient")
    assert float((got - leaf.grad).abs().max()) <= 1e-5 * float(leaf.grad.abs().max())
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.attribute(x, 2), model.attribute(x, 2))

    class Other(nn.Module):  # type: ignore[misc, name-defined]
        """Computes something else when it is exported."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))

        def forward(self, x: Any) -> Any:
            return self.net(torch.relu(x) if torch.onnx.is_in_onnx_export() else x)

    with pytest.raises(verilume.ModelError, match="Other"):
        verilume.from_torch(Other(), x)
