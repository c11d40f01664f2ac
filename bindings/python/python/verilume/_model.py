"""Nets, and what can be asked of them."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union, overload

import numpy as np
import numpy.typing as npt

from . import _arrays, _native
from ._errors import InputError, ModelError, SettingsError
from ._results import CheckResult, EvalResult, Explanation

Picture = Union[str, "os.PathLike[str]", Any]
"""A path, a picture of Pillow, or an array of levels: uint8, ``[H, W, 3]`` or ``[H, W]``."""
Class = Union[int, str]
"""A class: its index, its name, ``"top1"`` (the most likely) or ``"least"`` (the least likely)."""

# Largest difference between the logits of a module and of its export, as a share of the largest logit.
_TOLERANCE = 1e-4


class Model:
    """A net with the settings of its computation. :func:`load` and :func:`from_torch` make it.

    It can be used by several threads at a time: each call borrows an engine of its own, which is made when there is none
    to spare, and ``memory`` bounds each engine. It can be used in a forked process, which makes engines of its own. It is
    pickled by its arguments: the net's file is opened again.
    """

    name: str
    """The net's name."""
    architecture: str
    """Its architecture."""
    sha256: str
    """Hash of its file."""
    labels: list[str]
    """Names of its classes."""
    input_shape: tuple[int, ...]
    """Channels, rows and columns of its input."""

    def __init__(self, settings: dict[str, Any], folder: str | None = None) -> None:
        self._settings = settings
        self._folder = folder
        if folder is not None:
            # A forked process leaves the folder to the one that made it.
            weakref.finalize(self, _remove, folder, os.getpid())
        self._net = _open(settings)
        self.name, self.architecture, self.sha256, self.labels, shape = self._net.about()
        self.input_shape = tuple(shape)
        self._numbered = any(part.strip().isdecimal() for name in self.labels for part in name.split(","))

    @property
    def device(self) -> str:
        """The device that computes."""
        return self._net.device()[0]

    @property
    def assumed(self) -> list[str]:
        """What neither the net's files nor the arguments say, and was assumed."""
        return self._net.said()[0]

    @property
    def warnings(self) -> list[str]:
        """Probable mistakes."""
        return self._net.said()[1]

    @overload
    def explain(
        self,
        pictures: str | os.PathLike[str],
        method: str | None = None,
        *,
        target: Class | None = None,
        seed: int = 0,
        strict: bool = False,
        progress: bool | None = None,
        **parameters: Any,
    ) -> Explanation: ...
    @overload
    def explain(
        self,
        pictures: list[Any] | tuple[Any, ...],
        method: str | None = None,
        *,
        target: Class | Sequence[Class] | None = None,
        seed: int = 0,
        strict: bool = False,
        progress: bool | None = None,
        **parameters: Any,
    ) -> list[Explanation]: ...
    @overload
    def explain(
        self,
        pictures: Any,
        method: str | None = None,
        *,
        target: Class | Sequence[Class] | None = None,
        seed: int = 0,
        strict: bool = False,
        progress: bool | None = None,
        **parameters: Any,
    ) -> Any: ...
    def explain(
        self,
        pictures: Any,
        method: str | None = None,
        *,
        target: Class | Sequence[Class] | None = None,
        seed: int = 0,
        strict: bool = False,
        progress: bool | None = None,
        **parameters: Any,
    ) -> Any:
        """Explains a picture, or each of a list.

        ``pictures`` is a path, a picture of Pillow, an array of levels (uint8, ``[H, W, 3]`` or ``[H, W]``), or a list of
        them. ``method`` is a name with parameters, as ``"smoothgrad:n=16"``; ``parameters`` are more of them, as ``n=16``.
        ``target`` is a class or, for a list, one for each picture; the most likely one if not given. ``seed`` is that of
        everything random. A picture that cannot be used is an entry with ``error``, unless ``strict``; a single one
        raises. ``progress`` shows a bar of tqdm, by default for lists on a terminal where tqdm is installed.

        Returns an :class:`Explanation`, or a list of them. Raises a :class:`VerilumeError`.
        """
        single = _is_picture(pictures)
        each = _pictures(pictures)
        given = [_given(picture, None if single else at) for at, picture in enumerate(each)]
        spec = [] if method is None and not parameters else [_spec(method, parameters)]
        targets = self._classes(target, len(each), "target")
        with _Bar(progress, len(each)) as bar:
            rows = self._net.explain(given, spec, targets, (_seed(seed), strict or single), bar.hear)
        made = [Explanation(*row) for row in rows]
        return made[0] if single else made

    def attribute(
        self,
        x: Any,
        target: Any = None,
        method: str = "gradient",
        *,
        seed: int = 0,
        progress: bool | None = None,
        **parameters: Any,
    ) -> Any:
        """Maps of normalised inputs, in the shape of Captum's ``attribute``.

        ``x`` is ``[N, C, H, W]``: an array of NumPy, or of any library with ``__dlpack__`` in the memory of the CPU.
        ``target`` is an index or one for each input; the most likely class if not given. ``method`` and ``parameters`` are
        as for :meth:`explain`.

        Returns an array of the same library, ``[N, C, H, W]``, or ``[N, 1, H, W]`` for methods with one number a position;
        float64 with ``precision="f64"``, else float32. Raises a :class:`VerilumeError`.
        """
        numbers = _arrays.numbers(x)
        n = len(numbers) if numbers.ndim else 0
        classes = _arrays.indices(target, n)
        with _Bar(progress, n) as bar:
            maps = self._net.attribute(numbers, classes, _spec(method, parameters), _seed(seed), bar.hear)
        return _arrays.like(x, maps)

    def logits(self, x: Any) -> npt.NDArray[np.float64]:
        """Logits of normalised inputs ``[N, C, H, W]``: ``[N, classes]``."""
        return self._net.logits(_arrays.numbers(x))

    def check(
        self,
        pictures: Any,
        methods: str | Iterable[str] = (),
        *,
        tests: str | Iterable[str] = (),
        seed: int = 0,
        progress: bool | None = None,
    ) -> CheckResult:
        """Puts methods to the tests of trust, as ``verilume check`` does.

        ``pictures`` are as for :meth:`explain`. Without ``methods`` or ``tests``, those of the command are meant.
        """
        each = _pictures(pictures)
        given = [_given(picture, at) for at, picture in enumerate(each)]
        asked = (_names(methods), _names(tests))
        command = f"verilume.Model.check({[name for name, *_ in given]}, methods={asked[0]}, tests={asked[1]}, seed={seed})"
        with _Bar(progress, len(each)) as bar:
            return CheckResult(*self._net.check(given, asked, _seed(seed), command, bar.hear))

    def evaluate(
        self,
        pictures: Any,
        labels: Class | Iterable[Class] | None = None,
        *,
        methods: str | Iterable[str] = (),
        metrics: str | Iterable[str] = (),
        target: str = "predicted",
        seed: int = 0,
        progress: bool | None = None,
    ) -> EvalResult:
        """Measures how good methods are on pictures of known classes, as ``verilume eval`` does.

        ``pictures`` are as for :meth:`explain`. ``labels`` are their classes, by index or name, one for each or one for
        all; without them, metrics that need none are measured. ``target`` is the class that is explained:
        ``"predicted"`` or ``"label"``. Without ``methods`` or ``metrics``, those of the command
        are meant. :func:`metrics` lists them.
        """
        if target not in ("predicted", "label"):
            raise SettingsError(f"target: '{target}' is neither predicted nor label")
        each = _pictures(pictures)
        classes = None if labels is None else self._classes(labels, len(each), "labels")
        asked = (_names(methods), _names(metrics))
        with tempfile.TemporaryDirectory(prefix="verilume-") as folder:
            data, out = os.path.join(folder, "data"), os.path.join(folder, "out")
            os.mkdir(data)
            names = dict(_place(picture, at, data) for at, picture in enumerate(each))
            table = None
            if classes is not None:
                table = os.path.join(folder, "labels.csv")
                with open(table, "w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([("file", "label"), *zip(names, classes)])
            paths = [os.path.join(data, name) for name in names]
            with _Bar(progress, len(each)) as bar:
                how = (target == "label", _seed(seed))
                summary, lines = self._net.evaluate(paths, (table, out), asked, how, bar.hear)
        return EvalResult(summary, lines, names)

    def explain_func(self, method: str = "gradient", **parameters: Any) -> Callable[..., npt.NDArray[Any]]:
        """A function ``(model, inputs, targets, **_) -> maps`` as Quantus takes it for ``explain_func``.

        Its ``model`` is ignored: this net is explained.
        """
        spec = _spec(method, parameters)

        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> npt.NDArray[Any]:
            return np.asarray(self.attribute(_arrays.numbers(inputs, "inputs"), targets, spec))

        return explain

    def _classes(self, classes: Any, n: int, what: str) -> list[str]:
        """A class for each of ``n`` pictures, as the command line takes it."""
        if hasattr(classes, "tolist"):
            classes = classes.tolist()
        each: list[Any] = list(classes) if isinstance(classes, (list, tuple, range)) else [classes] * n
        if len(each) != n:
            raise InputError(f"{what}: every picture needs one class: {n} pictures, {len(each)} classes")
        return [self._class(one, what) for one in each]

    def _class(self, one: Any, what: str) -> str:
        if one is None and what == "target":
            return "top1"
        if isinstance(one, str):
            return one
        try:
            index = _arrays.index(one)
        except InputError as e:
            raise InputError(f"{what}: a class is its index or its name, not {one!r}") from e
        if not index < len(self.labels):
            raise SettingsError(f"{what}: class {index} does not exist, the net has {len(self.labels)}")
        # In a text the name of a class comes before the index of another.
        if self._numbered:
            if self.labels.count(self.labels[index]) > 1:
                raise SettingsError(f"{what}: class {index} has the name of another; its index could be the name of a third")
            return self.labels[index]
        return str(index)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._folder is None:
            return _again, (self._settings, self.sha256)
        with open(self._settings["model"], "rb") as file:
            return _from_bytes, (file.read(), self._settings)

    def __repr__(self) -> str:
        return f"<verilume.Model {self.name}: {self.architecture}, {len(self.labels)} classes>"


def load(
    model: Any = None,
    *,
    example: Any = None,
    arch: str | None = None,
    device: str = "auto",
    precision: str = "f32",
    threads: int | None = None,
    memory: int | str | None = None,
    score: str = "logit",
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    size: int | str | tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    output: str | None = None,
    head: str | None = None,
) -> Model:
    """Opens a net; the embedded EfficientNet-Lite0 if none is given.

    ``model`` is a path (``.safetensors``, ``.onnx``, or a folder that holds one), or a module of PyTorch with an
    ``example`` of its input. The other arguments are the options of the command line: ``arch``, ``output`` and ``head`` say
    what a file leaves open; ``device`` is ``auto``, ``cpu`` or ``cuda:i``; ``precision`` is ``f32``, ``f64``, ``tf32``,
    ``bf16`` or ``f16``; ``threads`` is the number of threads of each engine; ``memory`` bounds an engine, as ``"512MiB"``;
    ``score`` is ``logit``, ``prob`` or ``logprob``; ``labels`` is a file or a list of names; ``size`` is the side or
    ``(rows, columns)`` of the crop, or ``"RESIZE:SIDE"``; ``mean`` and ``std`` are for levels from 0 to 1.
    """
    settings: dict[str, Any] = {
        "arch": arch,
        "device": device,
        "precision": precision,
        "threads": threads,
        "memory": memory,
        "score": score,
        "labels": list(labels) if isinstance(labels, (list, tuple, np.ndarray)) else _absolute(labels),
        "size": size,
        "mean": mean,
        "std": std,
        "output": output,
        "head": head,
    }
    if model is None or isinstance(model, (str, os.PathLike)):
        if example is not None:
            raise SettingsError("example: it belongs to a module of PyTorch, and the model is a file")
        return Model({"model": _absolute(model), **settings})
    if not callable(model):
        raise InputError(f"model: a path or a module of PyTorch is wanted, not {type(model).__name__}")
    if example is None:
        raise SettingsError("example: a module of PyTorch needs an example of its input, [N, C, H, W]")
    return _from_module(model, example, settings)


def from_torch(module: Any, example: Any, **settings: Any) -> Model:
    """Opens a module of PyTorch: exports it as ONNX, loads that, and compares logits with the module's.

    ``example`` is an input, ``[N, C, H, W]``; ``settings`` are those of :func:`load`. The module computes in evaluation
    mode and keeps its own mode. Raises :class:`ModelError` when the logits differ by more than 1e-4 of the largest.
    """
    return load(module, example=example, **settings)


def _absolute(path: Any) -> str | None:
    """The full path of a file, because a pickled model may be opened from another folder. Other names stay as they are."""
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise SettingsError(f"labels: the path of a file or a list of names is wanted, not {path!r}")
    name = os.fspath(path)
    return os.path.abspath(name) if os.path.exists(name) else name


def _from_module(module: Any, example: Any, settings: dict[str, Any]) -> Model:
    torch: Any = importlib.import_module("torch")
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"model: a path or a module of PyTorch is wanted, not {type(module).__name__}")
    folder = tempfile.mkdtemp(prefix="verilume-")
    path = os.path.join(folder, "net.onnx")
    modes = [(part, part.training) for part in module.modules()]
    # The fast path of attention is an operation of its own, which is not exported.
    attention: Any = getattr(torch.backends, "mha", None)
    fast = attention.get_fastpath_enabled() if attention is not None else False
    try:
        module.eval()
        if attention is not None:
            attention.set_fastpath_enabled(False)
        try:
            with torch.no_grad():
                wanted = module(example)
                torch.onnx.export(module, (example[:1],), path, dynamo=False)
        except Exception as e:
            raise ModelError(f"{type(module).__name__}: the module cannot be exported: {e}") from e
        finally:
            for part, mode in modes:
                part.training = mode
            if attention is not None:
                attention.set_fastpath_enabled(fast)
        model = Model({"model": path, **settings}, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    wanted = getattr(wanted, "logits", wanted)
    if not isinstance(wanted, torch.Tensor):
        raise ModelError(f"{type(module).__name__}: the module gives a {type(wanted).__name__}, not a tensor of logits")
    want = np.asarray(wanted.detach().cpu().double().numpy())
    _compare(type(module).__name__, want.reshape(len(want), -1), model.logits(example.detach().cpu()))
    return model


def _compare(name: str, want: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> None:
    if want.shape != got.shape:
        raise ModelError(f"{name}: the module gives {list(want.shape)} numbers, its export {list(got.shape)} logits")
    powers = np.exp(got - got.max(axis=1, keepdims=True))
    # A softmax at the end of the module is taken off its export, so its outputs may be probabilities.
    off = min(_off(want, got), _off(want, powers / powers.sum(axis=1, keepdims=True)))
    if not off <= _TOLERANCE:
        raise ModelError(f"{name}: the logits of its export differ from the module's by {off:.1e} of the largest")


def _off(want: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> float:
    largest = float(np.abs(want).max())
    return float(np.abs(want - got).max()) / largest if largest > 0 else float(np.abs(got).max())


def _again(settings: dict[str, Any], sha256: str) -> Model:
    model = Model(settings)
    if model.sha256 != sha256:
        raise ModelError(f"{settings['model'] or model.name}: the file is another than that of the pickled model")
    return model


def _from_bytes(net: bytes, settings: dict[str, Any]) -> Model:
    folder = tempfile.mkdtemp(prefix="verilume-")
    path = os.path.join(folder, "net.onnx")
    with open(path, "wb") as file:
        file.write(net)
    return Model({**settings, "model": path}, folder)


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _open(settings: dict[str, Any]) -> _native.Net:
    options = []
    names = settings["labels"]
    with tempfile.TemporaryDirectory(prefix="verilume-") if isinstance(names, list) else _Nothing() as folder:
        for name, value in settings.items():
            if name == "labels" and isinstance(value, list):
                value = _label_file(os.path.join(folder, "labels.txt"), value)
            if value is not None:
                options.append(f"--{name}={_option(name, value)}")
        return _native.Net(options)


def _label_file(path: str, names: list[Any]) -> str:
    if not all(isinstance(name, str) and name.strip() and "\n" not in name for name in names):
        raise SettingsError("labels: a list of names, each of one line, is wanted")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(names) + "\n")
    return path


def _option(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        return ("x" if name == "size" else ",").join(str(part) for part in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _is_picture(pictures: Any) -> bool:
    """Whether this is one picture and not several."""
    if isinstance(pictures, (str, bytes, os.PathLike)) or _is_pillow(pictures):
        return True
    return getattr(pictures, "ndim", None) in (0, 1, 2, 3)


def _pictures(pictures: Any) -> list[Any]:
    if _is_picture(pictures):
        return [pictures]
    if not isinstance(pictures, Iterable):
        raise InputError(f"a path, a picture of Pillow, an array or a list of them is wanted, not {type(pictures).__name__}")
    return list(pictures)


def _names(names: str | Iterable[str]) -> list[str]:
    """Of methods, tests or metrics; one alone may be no list."""
    return [names] if isinstance(names, str) else list(names)


def _is_pillow(picture: Any) -> bool:
    return hasattr(picture, "convert") and hasattr(picture, "mode") and hasattr(picture, "size")


def _given(picture: Any, at: int | None) -> tuple[str, npt.NDArray[np.uint8] | None, str | None]:
    """A path; or, for a picture in memory, a name with the levels or with the reason why it cannot be used."""
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture), None, None
    name = "picture" if at is None else f"picture {at}"
    try:
        if _is_pillow(picture):
            return getattr(picture, "filename", "") or name, _levels_of_pillow(picture), None
        return name, _levels(picture), None
    except InputError as e:
        return name, None, str(e).removeprefix("picture: ")


def _levels_of_pillow(picture: Any) -> npt.NDArray[np.uint8]:
    from PIL import ImageOps

    if picture.mode.startswith(("I", "F")):
        raise InputError(f"levels of 8 bits are wanted, not a picture of mode {picture.mode}")
    try:
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as e:
        # Pillow decodes a file when its pixels are wanted.
        raise InputError(f"Pillow cannot read the picture: {e}") from e


def _levels(picture: Any) -> npt.NDArray[np.uint8]:
    if not isinstance(picture, np.ndarray) and not hasattr(picture, "__dlpack__"):
        raise InputError(f"a path, a picture of Pillow or an array is wanted, not {type(picture).__name__}")
    array = _arrays.as_array(picture, "picture")
    if array.dtype != np.uint8:
        raise InputError(f"levels (uint8) are wanted, not {array.dtype}; attribute takes normalised numbers")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.size == 0:
        raise InputError(f"an array of shape {list(array.shape)} is not a picture [height, width, 3]")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _place(picture: Any, at: int, folder: str) -> tuple[str, str]:
    """Puts a picture into a folder, as a link or as a file; its name there, and its own."""
    path, levels, why = _given(picture, at)
    if why is not None:
        raise InputError(f"{path}: {why}")
    if levels is None:
        ending = os.path.splitext(path)[1]
        if os.path.isdir(path) or ending.lower() in (".npy", ".safetensors"):
            raise InputError(f"{path}: the file of a picture is wanted, or the picture in memory")
        name = f"{at:06}{ending}"
        os.symlink(os.path.abspath(path), os.path.join(folder, name))
    else:
        name = f"{at:06}.png"
        with open(os.path.join(folder, name), "wb") as file:
            file.write(_native.png(levels))
    return name, path


def _seed(seed: int) -> int:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
        raise SettingsError(f"seed: {seed} is not a whole number from 0 to 2^64 - 1")
    return int(seed)


def _spec(method: str | None, parameters: dict[str, Any]) -> str:
    """A method with its parameters, as the command line takes it."""
    if method is None and parameters:
        raise SettingsError(f"{', '.join(parameters)}: parameters need a method")
    if not isinstance(method, str):
        raise SettingsError(f"method: the name of a method is wanted, not {method!r}")
    given = ",".join(f"{key}={_value(value)}" for key, value in parameters.items())
    if not given:
        return method
    return f"{method}{',' if ':' in method else ':'}{given}"


def _value(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return f"({text})" if any(c in text for c in ",=") and not text.startswith("(") else text


class _Nothing:
    """A folder that is not needed."""

    def __enter__(self) -> str:
        return ""

    def __exit__(self, *_: object) -> None:
        pass


class _Bar:
    """A bar of tqdm, where one is wanted and can be had."""

    def __init__(self, progress: bool | None, n: int) -> None:
        self.hear: Callable[[str, Any], None] | None = None
        self._bar: Any = None
        if progress is False or (progress is None and (n < 2 or not _is_watched())):
            return
        try:
            from tqdm.auto import tqdm
        except ImportError as e:
            if progress:
                raise SettingsError("progress needs tqdm, which is not installed: pip install tqdm") from e
            return
        self._bar = tqdm(total=n, leave=False)
        self.hear = self._hear

    def _hear(self, what: str, value: Any) -> None:
        if what == "total":
            self._bar.reset(total=value)
        elif what == "done":
            self._bar.update(value)
        else:
            self._bar.set_postfix_str(value)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            # Steps are drawn ten times a second at most; the last one is drawn in any case.
            self._bar.refresh()
            self._bar.close()


def _is_watched() -> bool:
    """Whether a person sees standard error: a terminal or a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
