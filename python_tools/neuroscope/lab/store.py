"""Experiments in SQLite, each under its content hash: the same experiment is the same row."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, String, Text, create_engine, event, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from neuroscope.errors import LabError
from neuroscope.lab.experiments import Experiment


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "experiments"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    made: Mapped[str] = mapped_column(String(32), index=True)
    model: Mapped[str] = mapped_column(String(200), index=True)
    kind: Mapped[str] = mapped_column(String(20), index=True)
    component: Mapped[str] = mapped_column(String(20), index=True)
    layer: Mapped[int] = mapped_column(index=True)
    change: Mapped[float]  # of the answer's probability
    kl: Mapped[float]
    experiment: Mapped[str] = mapped_column(Text)
    result: Mapped[str] = mapped_column(Text)


class ExperimentStore:
    """One database file; several processes may write to it."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises: LabError when it can't be."""
        self._engine: Engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        event.listen(self._engine, "connect", _wait_for_writers)
        try:
            _Base.metadata.create_all(self._engine)
        except Exception as error:
            raise LabError(
                f"The database {path} can't be opened ({_reason(error)}); name a file in a folder that is there, with "
                "--database of serve or --output of sweep.",
                status=409,
            ) from error

    def close(self) -> None:
        self._engine.dispose()

    def put(self, experiment: Experiment, result: dict[str, Any]) -> dict[str, Any]:
        """Keeps it, unless it is there; answers what is kept."""
        self.put_all([(experiment, result)])
        return self.get(experiment.hash)

    def put_all(self, several: Sequence[tuple[Experiment, dict[str, Any]]]) -> None:
        """Keeps all of them or, when the process ends meanwhile, none; those that are there stay as they are."""
        rows = [_row_of(experiment, result) for experiment, result in several]
        with Session(self._engine) as session:
            session.execute(insert(_Row).on_conflict_do_nothing(), rows)
            session.commit()

    def hashes(self) -> set[str]:
        """Of all experiments, without reading what they hold."""
        with Session(self._engine) as session:
            return set(session.scalars(select(_Row.hash)))

    def find(self, hash: str) -> dict[str, Any] | None:
        with Session(self._engine) as session:
            row = session.get(_Row, hash)
            return None if row is None else _shown(row)

    def get(self, hash: str) -> dict[str, Any]:
        """Raises: LabError when there is none."""
        found = self.find(hash)
        if found is None:
            raise LabError(
                f"There is no experiment {hash}; GET /v1/experiments lists them.", status=404, code="not_found"
            )
        return found

    def list(self, *, limit: int = 100, offset: int = 0, **filters: str | int | None) -> list[dict[str, Any]]:
        """The newest first; `filters` are of model, kind, component, layer."""
        query = select(_Row).order_by(_Row.made.desc(), _Row.hash).limit(limit).offset(offset)
        for name, wanted in filters.items():
            if wanted is not None:
                query = query.where(getattr(_Row, name) == wanted)
        with Session(self._engine) as session:
            return [_shown(row) for row in session.scalars(query)]

    def all(self) -> Iterator[dict[str, Any]]:
        with Session(self._engine) as session:
            for row in session.scalars(select(_Row).order_by(_Row.made, _Row.hash)).yield_per(100):
                yield _shown(row)

    def delete(self, hash: str) -> None:
        """Raises: LabError when there is none."""
        with Session(self._engine) as session:
            row = session.get(_Row, hash)
            if row is None:
                raise LabError(f"There is no experiment {hash} to delete.", status=404, code="not_found")
            session.delete(row)
            session.commit()


def _reason(error: Exception) -> str:
    """The database's own words, without the library's page about them."""
    return str(getattr(error, "orig", None) or error)


def _wait_for_writers(connection: Any, _: Any) -> None:
    """Readers go on while another process writes."""
    connection.execute("PRAGMA journal_mode=WAL")


def _row_of(experiment: Experiment, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "hash": experiment.hash,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": experiment.model,
        "kind": experiment.kind,
        "component": experiment.target.component,
        "layer": experiment.target.layer,
        "change": result["answer"]["change"],
        "kl": result["kl"],
        "experiment": json.dumps(experiment.as_json()),
        "result": json.dumps(result),
    }


def _shown(row: _Row) -> dict[str, Any]:
    return {
        "hash": row.hash,
        "made": row.made,
        "experiment": json.loads(row.experiment),
        "result": json.loads(row.result),
    }
