"""The recipe for Spark on a local Spark with two processes: the bits of one process."""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import same

import verilume


@pytest.mark.full
def test_map_in_pandas(
    pictures: pathlib.Path, alone: Callable[..., dict[str, verilume.Explanation]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql: Any = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)

    def explain(batches: Iterator[Any]) -> Iterator[Any]:
        from verilume.ray import Explainer

        explainer = Explainer(method="smoothgrad:n=2", seed=4, column="content")
        for batch in batches:
            yield explainer(batch)

    columns = (
        "id string, prediction int, target int, label string, score double, map array<float>, shape array<int>, "
        "map_file string, record string, error string"
    )
    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(pictures))
        rows = [row.asDict() for row in files.repartition(4).mapInPandas(explain, columns).collect()]
    finally:
        spark.stop()
    same([{**row, "id": row["id"].removeprefix(f"file:{pictures}/")} for row in rows], alone("smoothgrad:n=2", seed=4))
