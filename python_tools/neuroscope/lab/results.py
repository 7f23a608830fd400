"""Where a sweep's results go: the lab's own database, or a folder of Parquet files, one a batch.

Both know what is done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from neuroscope.errors import LabError, MissingProgramError
from neuroscope.lab.experiments import Experiment
from neuroscope.lab.store import ExperimentStore

_COLUMNS = (
    "hash", "model", "kind", "component", "layer", "head", "position", "change", "kl", "experiment", "result",
)  # fmt: skip
Result = tuple[Experiment, dict[str, Any]]


class Results(Protocol):
    """A batch is kept whole or not at all."""

    def done(self) -> set[str]: ...
    def append(self, batch: Sequence[Result]) -> None: ...


class SqliteResults:
    """Rows of the lab's database: a sweep's experiments are listed, compared and replayed like any other."""

    def __init__(self, path: Path) -> None:
        self._store = ExperimentStore(path)

    def done(self) -> set[str]:
        return self._store.hashes()

    def append(self, batch: Sequence[Result]) -> None:
        self._store.put_all(batch)


class ParquetResults:
    """part-N.parquet in a folder, readable as one data set."""

    def __init__(self, folder: Path) -> None:
        """Raises: MissingProgramError without pyarrow."""
        try:
            import pyarrow  # type: ignore[import-untyped]
            import pyarrow.parquet  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingProgramError("pyarrow is missing; `pip install neuroscope[ray]` installs it.") from error
        self._arrow: Any = pyarrow
        # told, not guessed: a part without a single head would have a column of another type than the next
        kinds = {"layer": "int64", "head": "int64", "position": "int64", "change": "double", "kl": "double"}
        self._schema = pyarrow.schema([(name, kinds.get(name, "string")) for name in _COLUMNS])
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def done(self) -> set[str]:
        found: set[str] = set()
        for path in self._folder.glob("part-*.parquet"):
            table = self._arrow.parquet.read_table(path, columns=["hash"])
            found.update(table["hash"].to_pylist())
        return found

    def append(self, batch: Sequence[Result]) -> None:
        rows = [
            {
                "hash": experiment.hash,
                "model": experiment.model,
                "kind": experiment.kind,
                "component": experiment.target.component,
                "layer": experiment.target.layer,
                "head": experiment.target.head,
                "position": experiment.target.position,
                "change": result["answer"]["change"],
                "kl": result["kl"],
                "experiment": json.dumps(experiment.as_json()),
                "result": json.dumps(result),
            }
            for experiment, result in batch
        ]
        # named by what it holds: a batch that is run twice is one file
        path = self._folder / f"part-{rows[0]['hash'][:16]}-{len(rows)}.parquet"
        unfinished = path.with_name(f"_{path.name}")  # readers of a data set pass over such a name
        self._arrow.parquet.write_table(self._arrow.Table.from_pylist(rows, self._schema), unfinished)
        unfinished.replace(path)


def open_results(path: Path) -> Results:
    """By the name: a file .sqlite, or a folder. Raises: LabError."""
    if path.suffix in (".sqlite", ".db"):
        return SqliteResults(path)
    if path.suffix in ("", ".parquet"):
        return ParquetResults(path)
    raise LabError(f"Results go to a file NAME.sqlite or a folder NAME.parquet, not to {path}.")
