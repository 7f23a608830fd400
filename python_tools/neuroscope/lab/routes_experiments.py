"""Experiments over HTTP: run, map over layers, list, compare, export, replay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from neuroscope.errors import LabError
from neuroscope.lab import experiments, messages, work
from neuroscope.lab.experiments import Experiment, Target
from neuroscope.lab.model import Description, LabModel
from neuroscope.lab.passes import check_tokens
from neuroscope.lab.registry import Registry
from neuroscope.lab.settings import Spending
from neuroscope.lab.store import ExperimentStore

Text = Annotated[messages.Text, Field(max_length=100_000)]
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=100_000)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
COLUMNS = ("hash", "made", "model", "kind", "component", "layer", "head", "position", "change", "kl")


class TargetBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    component: Literal["layer", "attention", "mlp", "head", "residual"] = "layer"
    layer: Annotated[int, Field(ge=0)] = 0
    head: Annotated[int, Field(ge=0)] | None = None
    position: int | None = None


class ExperimentBody(BaseModel):
    """Texts get the token that begins a text in front; token ids are taken as they are."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    input: Text | Ids
    kind: Literal["zero", "mean", "resample", "patch", "add"]
    target: TargetBody = TargetBody()
    others: Annotated[list[Text | Ids], Field(max_length=1000)] = []
    direction: list[float] | None = None
    scale: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    answer: Text | int | None = None
    foil: Text | int | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class SweepBody(ExperimentBody):
    """`layers` None: all."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1000)] | None = None


def experiment_routes(registry: Registry, store: ExperimentStore) -> APIRouter:
    router = APIRouter(prefix="/v1/experiments", tags=["experiments"])

    @router.post("")
    async def run(request: Request, body: ExperimentBody) -> dict[str, Any]:
        def work_on(cancelled: work.IsCancelled) -> dict[str, Any]:
            model = registry.model(body.model)
            experiment = read_experiment(model, body, registry)
            experiments.check(model, experiment)
            known = store.find(experiment.hash)
            if known is not None:
                return {**known, "stored": True}
            with registry.turns(model).turn(cancelled):
                result = experiments.run(model, experiment, Spending(registry.settings.limits, cancelled).go_on)
            return {**store.put(experiment, result), "stored": False}

        return await work.run(request, work_on)

    @router.post("/sweep")
    async def sweep(request: Request, body: SweepBody) -> dict[str, Any]:
        def work_on(cancelled: work.IsCancelled) -> dict[str, Any]:
            model = registry.model(body.model)
            first = read_experiment(model, body, registry)
            several = experiments.at_layers(first, body.layers or range(model.description.layers))
            for each in several:
                experiments.check(model, each)
            known = {each.hash: store.find(each.hash) for each in several}
            missing = [each for each in several if known[each.hash] is None]
            spending = Spending(registry.settings.limits, cancelled)
            with registry.turns(model).turn(cancelled):
                # what is done is kept, whatever ends the rest: asked again, the map goes on from there
                for experiment, result in experiments.run_all(model, missing, spending.go_on):
                    known[experiment.hash] = store.put(experiment, result)
            rows = [{"layer": each.target.layer, **(known[each.hash] or {})} for each in several]
            return {"map": rows}

        return await work.run(request, work_on)

    @router.get("")
    def listed(
        model: str | None = None,
        kind: str | None = None,
        component: str | None = None,
        layer: Annotated[int, Query(ge=0, lt=2**31)] | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    ) -> dict[str, Any]:
        filters = {"model": model, "kind": kind, "component": component, "layer": layer}
        return {"experiments": store.list(limit=limit, offset=offset, **filters)}

    @router.get("/compare")
    def compare(a: Hash, b: Hash) -> dict[str, Any]:
        one, other = store.get(a), store.get(b)
        return {"a": one, "b": other, "differences": _differences(one, other)}

    @router.get("/export")
    def export(form: Literal["jsonl", "csv"] = "jsonl") -> Response:
        if form == "jsonl":
            lines = (json.dumps(each) + "\n" for each in store.all())
            return StreamingResponse(lines, media_type="application/jsonl")
        return StreamingResponse(_as_csv(store), media_type="text/csv")

    @router.get("/{hash}")
    def one(hash: Hash) -> dict[str, Any]:
        return store.get(hash)

    @router.delete("/{hash}")
    def delete(hash: Hash) -> dict[str, Any]:
        store.delete(hash)
        return {"status": "deleted", "hash": hash}

    @router.post("/{hash}/replay")
    async def replay(request: Request, hash: Hash) -> dict[str, Any]:
        def work_on(cancelled: work.IsCancelled) -> dict[str, Any]:
            kept = store.get(hash)
            experiment = Experiment.from_json(kept["experiment"])
            model = registry.model(experiment.model)
            now, then = _made_with(model.description), _made_with(experiment)
            if now != then:
                raise LabError(
                    f"Experiment {hash} was made with {then} of {experiment.model}, and this lab has {now}; start it "
                    "with those.",
                    status=409,
                    code="other_weights",
                )
            with registry.turns(model).turn(cancelled):
                result = experiments.run(model, experiment, Spending(registry.settings.limits, cancelled).go_on)
            return {"hash": hash, "equal": result == kept["result"], "result": result}

        return await work.run(request, work_on)

    return router


def read_experiment(model: LabModel, body: ExperimentBody, registry: Registry) -> Experiment:
    """The body as tokens. Raises: LabError."""
    limit = registry.settings.limits.prompt_tokens
    tokens = _tokens(model, body.input, limit, "input")
    others = tuple(_tokens(model, each, limit, "others") for each in body.others)
    if body.direction is not None and not all(abs(number) < 1e30 for number in body.direction):
        raise LabError("The direction holds a number that is not finite.", code="bad_experiment", parameter="direction")
    return Experiment(
        model=model.description.id,
        weights=model.description.weights,
        engine=model.description.engine,
        dtype=model.description.dtype,
        tokens=tokens,
        kind=body.kind,
        target=Target(**body.target.model_dump()),
        others=others,
        direction=None if body.direction is None else tuple(body.direction),
        scale=body.scale,
        answer=_token(model, body.answer, "answer"),
        foil=_token(model, body.foil, "foil"),
        seed=body.seed,
    )


def _made_with(of: Experiment | Description) -> str:
    return f"weights {of.weights[:16]} as {of.dtype} in {of.engine}"


def _tokens(model: LabModel, given: str | list[int], limit: int, parameter: str) -> tuple[int, ...]:
    if isinstance(given, str):
        if model.tokenizer is None:
            raise LabError(f"{model.description.id} has no tokenizer; give token ids.", parameter=parameter)
        ids = model.tokenizer.encode(given, add_special_tokens=False)
        start = model.tokenizer.bos_token_id
        given = ids if start is None else [start, *ids]
    check_tokens(model, [given], limit)
    return tuple(given)


def _token(model: LabModel, given: str | int | None, parameter: str) -> int | None:
    """A single token. Raises: LabError for a text of several."""
    if given is None:
        return None
    ids = [given] if isinstance(given, int) else list(_encoded(model, given, parameter))
    if len(ids) != 1:
        raise LabError(
            f"{given!r} is {len(ids)} tokens, and {parameter} is one; mind the space in front of a word.",
            code="not_one_token",
            parameter=parameter,
        )
    check_tokens(model, [ids], 1)
    return ids[0]


def _encoded(model: LabModel, text: str, parameter: str) -> list[int]:
    if model.tokenizer is None:
        raise LabError(f"{model.description.id} has no tokenizer; give token ids.", parameter=parameter)
    return model.tokenizer.encode(text, add_special_tokens=False)


def _differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What differs in the experiments, and how far the results are apart."""
    fields = {
        name: [one["experiment"][name], other["experiment"][name]]
        for name in one["experiment"]
        if name != "hash" and one["experiment"][name] != other["experiment"][name]
    }
    numbers = {
        "kl": other["result"]["kl"] - one["result"]["kl"],
        "change": other["result"]["answer"]["change"] - one["result"]["answer"]["change"],
    }
    return {"experiment": fields, "result": numbers}


def _as_csv(store: ExperimentStore) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\n"
    for each in store.all():
        experiment, result = each["experiment"], each["result"]
        values = {**experiment, **experiment["target"], **each, **result["answer"], "kl": result["kl"]}
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([values.get(name) for name in COLUMNS])
        yield line.getvalue()
