"""Many pictures on many processes, with Ray.

``explain_folder`` explains a folder into Parquet files and can be resumed. ``explain`` adds explanations to a
``ray.data.Dataset``; ``Explainer`` is its callable class, which Spark's ``mapInPandas`` takes too. ``evaluate`` is
``verilume eval`` in shares. An item's map depends on its picture and the seed alone, so no partition changes a bit.
Everything but ``Explainer`` needs Ray: ``pip install verilume[ray]``.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import _native
from ._errors import (
    DeviceError,
    FileError,
    InputError,
    KernelError,
    ModelError,
    NoDeviceError,
    SettingsError,
    VerilumeError,
)
from ._model import Class, Model, _Bar, _label_file, _option, load
from ._results import EvalResult, Explanation, _wanted

__all__ = ["Explainer", "evaluate", "explain", "explain_folder", "start"]

# CPUs that Ray Data needs beside its actors: it reads and writes in tasks of one CPU each.
_FREE = 1
# CPUs that `start` promises Ray beyond those of the machine, and the resource by which they are known.
_MORE = 2
_SPARE = "verilume_spare"
# Extensions of pictures, as the command line takes them in folders.
_EXTENSIONS = ".apng .bmp .gif .jfif .jpeg .jpg .pam .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
# Most pictures of a part, which is made as a whole or not at all.
_ROWS = 64
# How often a part, or a share of an evaluation, is tried again when its process ends.
_RETRIES = 3
# Settings of `load` that change no bit of a map.
_NO_BITS = ("memory", "threads")
_RUN = "_run.json"


class Explainer:
    """Explains batches: the callable class of ``Dataset.map_batches`` and of Spark's ``mapInPandas``.

    ``model`` and ``settings`` are those of :func:`verilume.load`, opened once a process; without more, the CPU and one
    thread compute. ``method``, ``target`` and ``seed`` are those of ``Model.explain``. A batch has the column ``column``
    with paths, encoded pictures (``bytes``) or levels (uint8, ``[H, W, 3]`` or ``[H, W]``), and the column ``id``.
    ``maps`` is ``"array"``; ``"files"``, which writes ``.npy`` files into ``folder``; or ``None``. Raises a
    :class:`VerilumeError`.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        method: str = "grad_cam",
        target: Class | None = None,
        seed: int = 0,
        column: str = "path",
        id: str = "path",
        maps: str | None = "array",
        folder: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        if maps not in ("array", "files", None):
            raise SettingsError(f"maps: '{maps}' is neither array nor files nor None")
        if (maps == "files") != (folder is not None):
            raise SettingsError("folder: it is where maps=\"files\" writes, and each needs the other")
        self.model: Model = load(model, **{"device": "cpu", "threads": 1, **settings})
        # A wrong method or class ends the run at its start.
        self._how: dict[str, Any] = {"method": method, "seed": seed, "progress": False}
        self._target = target
        self.model.explain([], **self._how)
        self._columns = (column, id)
        self._maps = maps
        self._folder = None if folder is None else os.fspath(folder)

    def __call__(self, batch: Any) -> Any:
        """Explains a batch: a mapping of columns to arrays, or a table of pandas or pyarrow.

        Returns a table of pandas for one of pandas, else one of pyarrow, a row a picture: ``id``; ``prediction``, the most
        likely class; ``target``, ``label`` and ``score`` of the explained one; ``map`` in C order and its ``shape``, or
        ``map_file``, below ``folder``; ``record``, the JSON record of the command line; and ``error``. All but ``id``,
        ``record`` and ``error`` are null where there is an error, which is null elsewhere. An error of the machine, such as
        of its GPU, is raised.
        """
        column, id = self._columns
        names = list(batch.column_names if hasattr(batch, "column_names") else batch)
        for name in (column, id):
            if name not in names:
                raise SettingsError(f"the batch has no column '{name}', but {', '.join(map(str, names))}")
        each, ids = (_cells(batch[name]) for name in (column, id))
        table = self.rows([_text(str(one)) for one in ids], each)
        return table.to_pandas(integer_object_nulls=True) if hasattr(batch, "iloc") else table

    def rows(self, ids: Sequence[str], pictures: Sequence[Any]) -> Any:
        """Explains pictures, in whatever form, as :meth:`__call__`: a table of pyarrow."""
        pa = _package("pyarrow")
        with tempfile.TemporaryDirectory(prefix="verilume-") as folder:
            # Files of encoded pictures: the library decodes them as those that lie in folders.
            given = [_filed(one, os.path.join(folder, str(at))) for at, one in enumerate(pictures)]
            made = self.model.explain(given, target=self._target, **self._how)
        for e in made:
            if isinstance(e.error, (DeviceError, KernelError, NoDeviceError)):
                # Not the picture's fault: another machine, or a later run, explains it.
                raise e.error
        rows = [self._row(id, e) for id, e in zip(ids, made)]
        return pa.Table.from_pylist(rows, schema=_schema())

    def _row(self, id: str, e: Explanation) -> dict[str, Any]:
        record = {**e.record, "input": id}
        if e.error is not None:
            # The library knows a file by its path, and a picture in memory by its place in the batch.
            error = _text(str(e.error).replace(e.input, id, 1))
            return {"id": id, "record": json.dumps({**record, "error": error}), "error": error}
        map = e.map
        row: dict[str, Any] = {
            "id": id,
            "prediction": e.prediction[0]["index"],
            "target": e.target,
            "label": e.label,
            "score": e.score,
            "shape": list(map.shape),
            "record": json.dumps(record),
        }
        if self._maps == "array":
            row["map"] = map.ravel()
        elif self._folder is not None:
            row["map_file"] = _write_map(self._folder, id, map)
        return row


def _schema() -> Any:
    pa = _package("pyarrow")
    types = {
        "id": pa.string(),
        "prediction": pa.int32(),
        "target": pa.int32(),
        "label": pa.string(),
        "score": pa.float64(),
        "map": pa.list_(pa.float32()),
        "shape": pa.list_(pa.int32()),
        "map_file": pa.string(),
        "record": pa.string(),
        "error": pa.string(),
    }
    return pa.schema(list(types.items()))


def _cells(column: Any) -> list[Any]:
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _filed(picture: Any, path: str) -> Any:
    if not isinstance(picture, (bytes, bytearray)):
        return picture
    with open(path, "wb") as file:
        file.write(picture)
    return path


def _text(name: str) -> str:
    """Text for Parquet, whose text is UTF-8: other bytes are escaped as the command line does."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _write_map(folder: str, id: str, map: Any) -> str:
    key = hashlib.sha256(id.encode()).hexdigest()[:32]
    name = os.path.join(key[:2], f"{key}.npy")
    os.makedirs(os.path.join(folder, key[:2]), exist_ok=True)
    with _replacing(os.path.join(folder, name)) as file:
        np.save(file, map)
    return name


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[Any]:
    """A file that has its name when it is complete."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def _seen(path: Any) -> Any:
    """A path as other processes find it; a name of something else as it is."""
    return os.path.abspath(path) if isinstance(path, (str, os.PathLike)) and os.path.exists(path) else path


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise SettingsError(f"verilume.ray needs {name}, which is not installed: pip install 'verilume[ray]'") from e


def start(cores: int | None = None) -> None:
    """Starts Ray on this machine, unless it runs, with two CPUs more than ``cores``, for reading and writing.

    ``cores`` are those that this process may use, if not given. With ``RAY_ADDRESS`` in the environment it joins that
    cluster. Call it before ``ray.data`` reads anything, which would start Ray without the two.
    """
    ray = _package("ray")
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level="warning")
        return
    # Ray would report its use to its authors.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    count = _whole("cores", _cores() if cores is None else cores)
    resources = {_SPARE: _MORE}
    ray.init(
        address="local", num_cpus=count + _MORE, resources=resources, include_dashboard=False, logging_level="warning"
    )


@contextlib.contextmanager
def _started() -> Iterator[None]:
    """Ray, which is stopped again if this has started it."""
    ray = _package("ray")
    own = not ray.is_initialized()
    start()
    try:
        yield
    finally:
        if own:
            ray.shutdown()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise SettingsError(f"{name}: a whole number above 0 is wanted, not {value!r}")
    return int(value)


def _count(actors: int | None, num_cpus: float, num_gpus: float, free: int) -> int:
    """Number of actors: all that fit, if not given. Raises if they do not fit, or leave fewer than ``free`` CPUs."""
    for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
        if not value >= 0:
            raise SettingsError(f"{name}: {value!r} is not a number of processors")
    needs = {kind: need for kind, need in (("CPU", num_cpus), ("GPU", num_gpus)) if need}
    if not needs:
        raise SettingsError("num_cpus, num_gpus: an actor needs one of them")
    nodes = [node["Resources"] for node in _package("ray").nodes() if node["Alive"]]
    spare = sum(node.get(_SPARE, 0) for node in nodes)
    cpus = sum(node.get("CPU", 0) for node in nodes) - spare
    room = [{**node, "CPU": node.get("CPU", 0) - node.get(_SPARE, 0)} for node in nodes]
    fit = sum(int(min(node.get(kind, 0) / need for kind, need in needs.items())) for node in room)
    free = max(0, free - int(spare))
    most = min(fit, int((cpus - free) / num_cpus)) if num_cpus else fit if cpus >= free else 0
    count = max(most, 1) if actors is None else _whole("actors", actors)
    if count > most:
        each = " and ".join(f"{need:g} {kind}" for kind, need in needs.items())
        why = f"; {free} CPU must stay free for reading and writing, or the work would wait for ever" if free else ""
        gpus = sum(node.get("GPU", 0) for node in nodes)
        raise SettingsError(f"actors: {count} of {each} each; the cluster has {cpus:g} CPU and {gpus:g} GPU{why}; {most} fit")
    return count


def _device(num_gpus: float) -> str:
    return "cuda" if num_gpus else "cpu"


def _settings(settings: Mapping[str, Any], num_cpus: float, num_gpus: float) -> dict[str, Any]:
    """Settings of `load` for an actor: its processors, and its share of the memory of the machine that has least."""
    shares = [
        int(node["Resources"]["memory"] * num_cpus / node["Resources"]["CPU"])
        for node in _package("ray").nodes()
        if node["Alive"] and "memory" in node["Resources"] and node["Resources"].get("CPU", 0) >= num_cpus > 0
    ]
    usual: dict[str, Any] = {"device": _device(num_gpus), "threads": max(1, int(num_cpus))}
    if shares and not num_gpus:
        usual["memory"] = min(shares)
    return {**usual, **{name: _seen(value) if name == "labels" else value for name, value in settings.items()}}


def _checked(model: Any, how: Mapping[str, Any]) -> Model:
    """The net, opened here on the CPU whatever the actors have: what no actor could use ends the run before it begins."""
    net = Explainer(model, **{name: value for name, value in how.items() if name not in ("device", "precision", "memory")}).model
    if how.get("target") is not None:
        net.explain(np.zeros((8, 8, 3), np.uint8), "gradient", target=how["target"])
    return net


def explain(
    dataset: Any,
    model: Any = None,
    *,
    batch_size: int = 32,
    actors: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **how: Any,
) -> Any:
    """Explains the pictures of a ``ray.data.Dataset``: a dataset with the columns of :class:`Explainer`, not yet computed.

    ``how`` are the arguments of :class:`Explainer`. ``actors`` is the number of processes, all that fit if not given;
    each has one engine, ``num_cpus`` CPUs and threads, and ``num_gpus`` GPUs. The dataset is cut into blocks of
    ``batch_size`` rows, so that every actor gets work even where small files were read as one block.

    Raises :class:`SettingsError` where the actors leave no CPU of the cluster for reading, which would wait for ever.
    """
    data = _package("ray.data")
    _checked(model, how)
    start()
    count = _count(actors, num_cpus, num_gpus, _FREE)
    rows = _whole("batch_size", batch_size)
    if how.get("folder") is not None:
        how["folder"] = os.path.abspath(how["folder"])
    blocks = dataset.repartition(target_num_rows_per_block=rows, strict=True)
    return blocks.map_batches(
        Explainer,
        fn_constructor_args=(_seen(model),),
        fn_constructor_kwargs=_settings(how, num_cpus, num_gpus),
        compute=data.ActorPoolStrategy(size=count),
        batch_size=rows,
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )


def explain_folder(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    method: str = "grad_cam",
    model: Any = None,
    target: Class | None = None,
    seed: int = 0,
    maps: str | None = "array",
    rows: int | None = None,
    actors: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    progress: bool | None = None,
    **settings: Any,
) -> dict[str, int]:
    """Explains the pictures below the folder ``src`` into Parquet files in the folder ``dst``, or goes on with it.

    The columns are those of :class:`Explainer`; ``id`` is the path below ``src``. The pictures, in the order of their
    paths, are divided into parts of at most ``rows``. A part is one file, which has its name when it is complete; the
    same call makes what is missing. ``dst`` holds the settings and the pictures, and other ones are refused. A picture
    that cannot be used is a row with ``error``. ``maps="files"`` writes maps into ``dst/_maps``. All machines must see
    both folders and the net's file by the same paths. ``actors``, ``num_cpus`` and ``num_gpus`` are those of
    :func:`explain`; here the actors read and write, and no CPU must stay free. ``settings`` are those of
    :func:`verilume.load`.

    Returns the numbers of ``pictures``, of ``failed`` ones, of ``parts``, and of those ``made`` by this call. Raises a
    :class:`VerilumeError`.
    """
    src, dst = _folder("src", src), _folder("dst", dst)
    ray, parquet = _package("ray"), _package("pyarrow.parquet")
    maps_in = os.path.join(dst, "_maps") if maps == "files" else None
    how = {"method": method, "target": target, "seed": seed, "maps": maps, "folder": maps_in}
    how.update({"device": _device(num_gpus), **settings})
    about: dict[str, Any] = {name: how[name] for name in sorted(how) if name not in (*_NO_BITS, "folder")}
    about.update(model=_checked(model, how).sha256, version=_native.version)
    found = _pictures(src, dst)
    with _locked(dst):
        size, key = _begin(dst, about, found, rows)
        parts = range(-(-len(found) // size))
        missing = [at for at in parts if not os.path.exists(_part(dst, at))]
        lost = []
        with _started() if missing else contextlib.nullcontext(), _Bar(progress, len(missing) * size) as bar:
            if missing:
                count = min(_count(actors, num_cpus, num_gpus, 0), len(missing))
                actor = (_Worker, src, dst, key, _seen(model), {**how, **_settings(settings, num_cpus, num_gpus)})
                with contextlib.closing(_drive(ray, actor, count, (num_cpus, num_gpus), missing)) as results:
                    for part, made in results:
                        if made is None:
                            lost.append(part)
                        if bar.hear is not None:
                            bar.hear("done", size)
        if lost:
            first = _text(found[min(lost) * size][0])
            raise _ended(f"{dst}: {len(lost)} of {len(parts)} parts are missing; the first begins with {first}")
        errors = (parquet.read_table(_part(dst, at), columns=["error"]).column("error") for at in parts)
        failed = sum(len(column) - int(column.null_count) for column in errors)
    return {"pictures": len(found), "failed": failed, "parts": len(parts), "made": len(missing)}


def _folder(name: str, path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if "://" in text:
        raise SettingsError(f"{name}: {text} is an address, and a folder that all machines see is wanted")
    return os.path.abspath(text)


def _part(dst: str, at: int) -> str:
    return os.path.join(dst, f"part-{at:06}.parquet")


def _pictures(src: str, dst: str) -> list[tuple[str, int, int]]:
    """Path below ``src``, size and time of the pictures, in the order of their paths."""
    found: list[tuple[str, int, int]] = []
    hidden = os.path.realpath(dst)

    def look(below: str, above: tuple[str, ...]) -> None:
        here = os.path.realpath(os.path.join(src, below))
        if here == hidden or here in above:
            return
        with os.scandir(here) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.is_dir():
                    look(path, (*above, here))
                elif os.path.splitext(entry.name)[1].lower() in _EXTENSIONS and not entry.name.startswith("._"):
                    # A link that leads nowhere is a picture that cannot be read.
                    stat = entry.stat(follow_symlinks=entry.is_file())
                    found.append((path, stat.st_size, stat.st_mtime_ns))

    if hidden == os.path.realpath(src):
        raise SettingsError(f"dst: {dst} is the folder of the pictures; another one is wanted")
    try:
        look("", ())
    except OSError as e:
        raise FileError(f"{e.filename or src}: {e.strerror}") from e
    if not found:
        raise InputError(f"{src}: it holds no pictures ({' '.join(_EXTENSIONS)})")
    found.sort(key=lambda picture: os.fsencode(picture[0]))
    ids: dict[str, str] = {}
    for path, *_ in found:
        if ids.setdefault(_text(path), path) != path:
            raise InputError(f"{src}: two pictures are called {_text(path)} after bytes that are not UTF-8 are escaped")
    return found


@contextlib.contextmanager
def _locked(dst: str) -> Iterator[None]:
    fcntl: Any = importlib.import_module("fcntl")
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(dst, exist_ok=True)
            # Of a folder that belongs to someone else nothing is touched.
            strange = sorted(name for name in os.listdir(dst) if name != ".lock")
            if strange and _RUN not in strange and not all(name.startswith(f".{_RUN}.") for name in strange):
                raise FileError(f"{dst}: it holds {_text(strange[0])} and no run of explain_folder; take an empty folder")
            lock = stack.enter_context(open(os.path.join(dst, ".lock"), "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                raise FileError(f"{dst}: another run writes there") from e
            # What killed processes have left.
            for left in glob.glob(os.path.join(glob.escape(dst), "**", ".*.tmp"), recursive=True):
                os.remove(left)
        except OSError as e:
            if isinstance(e, VerilumeError):
                raise
            raise FileError(f"{e.filename or dst}: {e.strerror}") from e
        yield


def _begin(
    dst: str, about: dict[str, Any], found: list[tuple[str, int, int]], rows: int | None
) -> tuple[int, str]:
    """Begins a run, or checks that ``dst`` holds this one. Returns the pictures of a part and the hash of the run's file."""
    path = os.path.join(dst, _RUN)
    # As they are read again.
    about = json.loads(json.dumps(about, default=str))
    if not os.path.exists(path):
        # Enough parts of few pictures for many actors.
        size = min(_ROWS, -(-len(found) // _ROWS)) if rows is None else _whole("rows", rows)
        with _replacing(path) as file:
            file.write(json.dumps({"settings": about, "rows": size, "pictures": found}).encode())
    with open(path, "rb") as file:
        data = file.read()
    try:
        run = json.loads(data)
        earlier, size, pictures = run["settings"], run["rows"], run["pictures"]
    except (ValueError, KeyError, TypeError) as e:
        raise FileError(f"{path}: it is not the file of a run of explain_folder") from e
    about["rows"] = size if rows is None else rows
    earlier = {**earlier, "rows": size}
    for name in sorted({*about, *earlier}):
        if about.get(name) != earlier.get(name):
            raise SettingsError(
                f"{name}: the run in {dst} has {earlier.get(name)!r}, and this one {about.get(name)!r}; "
                "go on with the same settings, or take another folder"
            )
    stamps: dict[str, list[int]] = {name: stamp for name, *stamp in pictures}
    for name, *stamp in found:
        if stamps.pop(name, None) != stamp:
            raise InputError(f"{_text(name)}: the picture is new or has changed since the run in {dst} began")
    if stamps:
        raise InputError(f"{_text(next(iter(stamps)))}: the picture is gone since the run in {dst} began")
    return size, hashlib.sha256(data).hexdigest()


def _drive(
    ray: Any, actor: tuple[Any, ...], count: int, needs: tuple[float, float], jobs: Sequence[Any]
) -> Generator[tuple[Any, Any], None, None]:
    """Has ``count`` actors, of a class and its arguments, do jobs; a job and its result as it comes.

    The result is ``None`` where the process ended too often. Raises what a job raises.
    """
    cls, *given = actor
    options = {"num_cpus": needs[0], "num_gpus": needs[1], "max_restarts": -1, "max_task_retries": _RETRIES}
    pool = [ray.remote(cls).options(**options).remote(*given) for _ in range(count)]
    try:
        # What no actor can open ends the work before it begins.
        for opened in [one.open.remote() for one in pool]:
            _get(ray, opened)
        left = iter(jobs)
        running = {one.do.remote(job): (one, job) for one, job in zip(pool, left)}
        while running:
            ready, _ = ray.wait(list(running))
            one, job = running.pop(ready[0])
            try:
                yield job, _get(ray, ready[0])
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError:
                yield job, None
            for job in left:
                running[one.do.remote(job)] = one, job
                break
    finally:
        for one in pool:
            ray.kill(one)


def _ended(what: str) -> VerilumeError:
    return VerilumeError(f"{what}, because its process ended {_RETRIES + 1} times. The same call tries it again")


def _get(ray: Any, what: Any) -> Any:
    """A result. An error of this package is raised as it was there."""
    try:
        return ray.get(what)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, VerilumeError):
            raise e.cause from None
        raise


class _Worker:
    """An actor of :func:`explain_folder`. Its constructor cannot fail, because Ray would start it again and again."""

    def __init__(self, src: str, dst: str, key: str, model: Any, how: dict[str, Any]) -> None:
        self._folders = (src, dst)
        self._given = (key, model, how)
        self._opened: tuple[dict[str, Any], Explainer] | None = None

    def open(self) -> bool:
        """Opens the net and the run."""
        return self._open() is not None

    def _open(self) -> tuple[dict[str, Any], Explainer]:
        if self._opened is None:
            (src, dst), (key, model, how) = self._folders, self._given
            path = os.path.join(dst, _RUN)
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError as e:
                raise FileError(f"{path}: {e.strerror}, on {socket.gethostname()}; all machines must see the folder") from e
            if hashlib.sha256(data).hexdigest() != key or not os.path.isdir(src):
                seen = dst if os.path.isdir(src) else src
                raise FileError(f"{seen}: {socket.gethostname()} does not see the folder that the driver sees")
            run = json.loads(data)
            explainer = Explainer(model, **how)
            if explainer.model.sha256 != run["settings"]["model"]:
                raise ModelError(f"{explainer.model.name}: the net on {socket.gethostname()} is not that of the driver")
            self._opened = run, explainer
        return self._opened

    def do(self, at: int) -> bool:
        """Makes a part and writes it."""
        run, explainer = self._open()
        src, dst = self._folders
        names = [name for name, *_ in run["pictures"][at * run["rows"] : (at + 1) * run["rows"]]]
        try:
            table = explainer.rows([_text(name) for name in names], [os.path.join(src, name) for name in names])
            with _replacing(_part(dst, at)) as file:
                # Maps are float32 without repetition: a dictionary would only cost time.
                columns = [name for name in table.column_names if name != "map"]
                _package("pyarrow.parquet").write_table(table, file, use_dictionary=columns, compression="zstd")
        except OSError as e:
            if isinstance(e, VerilumeError):
                raise
            raise FileError(f"{e.filename or _part(dst, at)}: {e.strerror or e}, on {socket.gethostname()}") from e
        return True


def evaluate(
    pictures: Iterable[str | os.PathLike[str]],
    classes: Iterable[Class] | None = None,
    *,
    model: Any = None,
    methods: Iterable[str] = (),
    metrics: Iterable[str] = (),
    target: str = "predicted",
    seed: int = 0,
    rows: int = _ROWS,
    actors: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **settings: Any,
) -> EvalResult:
    """Measures methods on many processes: what ``verilume eval`` does, in shares of ``rows`` pictures.

    ``pictures`` are paths that all machines see, ``classes`` their classes, by index or name; the rest is that of
    ``Model.evaluate`` and :func:`verilume.load`. The shares' measurements are put together and summed up by one run of
    the program, so that means and intervals are exactly those of one process. Raises a :class:`VerilumeError`.
    """
    paths = [os.path.abspath(picture) for picture in pictures]
    names = None if classes is None else [str(one) for one in classes]
    if names is not None and len(names) != len(paths):
        raise InputError(f"classes: every picture needs one: {len(paths)} pictures, {len(names)} classes")
    if target not in ("predicted", "label"):
        raise SettingsError(f"target: '{target}' is neither predicted nor label")
    if not paths:
        raise InputError("pictures: there is none")
    size = _whole("rows", rows)
    ray = _package("ray")
    asked = (list(methods), list(metrics))
    how = (target == "label", seed)
    needs = (num_cpus, num_gpus)
    jobs = [(at, paths[at : at + size], names and names[at : at + size]) for at in range(0, len(paths), size)]
    lines: list[str] = []
    with _started():
        count = min(_count(actors, *needs, 0), len(jobs))
        settings = {**_settings(settings, *needs), "model": _seen(model)}
        actor = (_Measurer, settings, asked, how)
        with contextlib.closing(_drive(ray, actor, count, needs, jobs)) as results:
            for (at, share, _), made in results:
                if made is None:
                    raise _ended(f"{paths[at]}: the {len(share)} pictures from this one on cannot be measured")
                lines += made
        task = ray.remote(_sum_up).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=_RETRIES)
        summary, lines = _get(ray, task.remote(paths, names, settings, asked, how, lines))
    return EvalResult(summary, lines, {path: path for path in paths})


_Asked = tuple[list[str], list[str]]


def _table(folder: str, paths: list[str], names: list[str] | None) -> str | None:
    if names is None:
        return None
    table = os.path.join(folder, "classes.csv")
    with open(table, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("file", "label"), *zip(paths, names)])
    return table


class _Measurer:
    """An actor of :func:`evaluate`. Its constructor cannot fail, as that of :class:`_Worker`."""

    def __init__(self, settings: dict[str, Any], asked: _Asked, how: tuple[bool, int]) -> None:
        self._given = (settings, asked, how)
        self._model: Model | None = None

    def open(self) -> bool:
        """Opens the net."""
        return self._open() is not None

    def _open(self) -> Model:
        if self._model is None:
            self._model = load(**self._given[0])
        return self._model

    def do(self, job: tuple[int, list[str], list[str] | None]) -> list[str]:
        """Measures a share; its lines of `eval.jsonl`."""
        _, asked, how = self._given
        _, paths, names = job
        with tempfile.TemporaryDirectory(prefix="verilume-") as folder:
            files = (_table(folder, paths, names), os.path.join(folder, "out"))
            return self._open()._net.evaluate(paths, files, asked, how, None)[1]


def _sum_up(
    paths: list[str], names: list[str] | None, settings: dict[str, Any], asked: _Asked, how: tuple[bool, int], lines: list[str]
) -> tuple[str, list[str]]:
    """Summary and lines of the whole: `verilume eval --resume` where each picture has been measured."""
    methods, metrics = asked
    with tempfile.TemporaryDirectory(prefix="verilume-") as folder:
        table, out = _table(folder, paths, names), os.path.join(folder, "out")
        words = ["verilume", "eval", "--resume", "--json", f"--out={out}", f"--seed={how[1]}"]
        words += [f"--target={'label' if how[0] else 'predicted'}"]
        words += [f"--method={one}" for one in methods] + [f"--metric={one}" for one in metrics]
        words += ["--unlabelled" if table is None else f"--labels-csv={table}", *(f"--data={path}" for path in paths)]
        if isinstance(settings.get("labels"), (list, tuple)):
            settings = {**settings, "labels": _label_file(os.path.join(folder, "labels.txt"), list(settings["labels"]))}
        words += [f"--{name}={_option(name, value)}" for name, value in settings.items() if value is not None]
        os.mkdir(out)
        journal = os.path.join(out, "eval.jsonl")
        with open(journal, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        # In a process of its own, so that nothing is printed here; and words on standard input have no limit.
        program = "import json, sys; from verilume import _native; sys.exit(_native.program(json.load(sys.stdin)))"
        done = subprocess.run([sys.executable, "-c", program], input=json.dumps(words).encode(), capture_output=True)
        summary = os.path.join(out, "summary.json")
        if not os.path.exists(summary):
            why = done.stderr.decode(errors="replace").strip().removeprefix("error: ")
            raise VerilumeError(why or f"verilume eval ended with {done.returncode}")
        with open(summary, encoding="utf-8") as text, open(journal, encoding="utf-8") as all_lines:
            return text.read(), all_lines.read().splitlines()
