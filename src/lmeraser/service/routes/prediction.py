"""Routes: classify images, texts or vectors, and describe the served model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from lmeraser.inference.predictor import Prediction
from lmeraser.service.access import require_scope
from lmeraser.service.bodies import is_json
from lmeraser.service.image_decoder import Upload
from lmeraser.service.limits import Reservation, tokens_of_body
from lmeraser.service.prediction_queue import PredictionBatch
from lmeraser.service.problems import Problem, documented
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.freshness import up_to_date

router = APIRouter(tags=["predictions"])

PredictKey = Annotated[ApiKey, Depends(require_scope("predict"))]
PredictOrReadKey = Annotated[ApiKey, Depends(require_scope("predict", "read"))]

_UPLOAD_SECONDS = 60.0  # for the body of a call; one that is held open would keep its memory

BODY_SCHEMA = "PredictionRequest"  # of JSON bodies, among the components of the description


class QueryPrediction(BaseModel):
    """The prediction for one image, text or vector.

    Attributes:
        label: index of the most probable class.
        class_name: its name.
        probability: its probability.
        clusters: numbers of the clusters whose constituents voted; only for keys with the scope `read`.
        rerouted: whether other clusters would have voted if they were not quarantined; only for such keys, too.
    """

    label: int
    class_name: str
    probability: float
    clusters: list[int] | None = None
    rerouted: bool | None = None

    @classmethod
    def of(cls, prediction: Prediction, *, complete: bool) -> QueryPrediction:
        """The response for a prediction, with the clusters behind it if it is complete."""
        answer = cls(label=prediction.label, class_name=prediction.class_name, probability=prediction.probability)
        if complete:
            answer.clusters = list(prediction.clusters)
            answer.rerouted = prediction.rerouted
        return answer


class PredictionResponse(BaseModel):
    """The predictions for the queries of one call, all by one generation.

    Attributes:
        generation: of the model that made them.
        model_digest: of that model.
        answers: the predictions, in the order of the queries.
    """

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "generation": 3,
                    "model_digest": "sha256:" + "0" * 64,
                    "answers": [
                        {"label": 7, "class_name": "7", "probability": 0.93, "clusters": [2], "rerouted": False}
                    ],
                }
            ]
        },
    )

    generation: int
    model_digest: str
    answers: list[QueryPrediction]


class ModelDescription(BaseModel):
    """The served model.

    Attributes:
        generation: its number.
        model_digest: of all its tensors and settings; models with equal digests are equal.
        fingerprints: of the environments in which it was derived.
        classes: their names, in the order of the labels.
        records: number of records that it was derived from. This and the following only for keys with the scope
            `read`: they tell when records are added and deleted.
        clusters: number of its clusters.
        quarantined: numbers of the clusters that are excluded from predictions.
        up_to_date: whether it is the model of the present records and settings.
    """

    model_config = ConfigDict(protected_namespaces=())

    generation: int
    model_digest: str
    fingerprints: list[str]
    classes: list[str]
    records: int | None = None
    clusters: int | None = None
    quarantined: list[int] | None = None
    up_to_date: bool | None = None


@router.post(
    "/predict",
    summary="Classify images, texts or vectors",
    response_model=PredictionResponse,
    response_model_exclude_none=True,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503),
)
async def predict(call: Call, key: PredictKey) -> PredictionResponse:
    """Classify one or more queries: of images, files named `images`, sent as a form; else JSON (scope `predict`).

    Clusters and global heads with a record whose deletion was accepted before the call began are not used.
    """
    service = service_of(call)
    in_files = service.payload_format.wire_field is None
    batch = await (_classify_files if in_files else _classify_json)(call, service, key)
    rerouted = sum(prediction.rerouted for prediction in batch.predictions)
    service.metrics.count_predictions(len(batch.predictions), rerouted=rerouted)
    model = batch.served.model
    return PredictionResponse(
        generation=model.generation,
        model_digest=batch.served.model_digest,
        answers=[QueryPrediction.of(prediction, complete=key.may(["read"])) for prediction in batch.predictions],
    )


@router.get(
    "/model",
    summary="Describe the served model",
    response_model=ModelDescription,
    response_model_exclude_none=True,
    responses=documented(401, 403, 429, 503),
)
def describe_model(call: Call, key: PredictOrReadKey) -> ModelDescription:
    """Describe the model that makes predictions now (scope `predict` or `read`)."""
    service = service_of(call)
    served = service.model_holder.current
    model = served.model
    description = ModelDescription(
        generation=model.generation,
        model_digest=served.model_digest,
        fingerprints=list(model.fingerprints),
        classes=list(model.classes),
    )
    if key.may(["read"]):
        description.records = model.records
        description.clusters = len(model.clusters)
        description.quarantined = sorted(served.quarantined.clusters)
        description.up_to_date = up_to_date(service.workspace, model)
    return description


async def _classify_files(call: Call, service: Service, key: ApiKey) -> PredictionBatch:
    """Classify the images of a form."""
    with service.upload_budget.reserve(key.id, _declared_bytes(call)) as received:
        decoded = await service.image_decoder.decode(key.id, await _read_uploads(call, service, received))
    with decoded.reservation:
        return await asyncio.wrap_future(
            service.prediction_queue.submit(decoded.images, lambda served: served.canvas_sizes == decoded.sizes)
        )


async def _classify_json(call: Call, service: Service, key: ApiKey) -> PredictionBatch:
    """Classify the payloads of a JSON body, whose bytes stay reserved until the predictions are made."""
    with service.upload_budget.reserve(key.id, _declared_bytes(call)) as received:
        payloads = await service.payload_reader.read(key.id, await _read_json(call, service, key, received))
        return await asyncio.wrap_future(service.prediction_queue.submit(payloads.items, payloads.fit))


async def _read_json(call: Call, service: Service, key: ApiKey, received: Reservation) -> bytes:
    """The bytes of a JSON body; they cost tokens of the rate limit (`bodies`, rule 2).

    Raises:
        Problem: it is declared as something else, or takes too long to arrive.
    """
    if not is_json(call):
        payloads = service.payload_format
        detail = (
            f"The content type is not application/json; this workspace holds {payloads.noun}s, so send JSON "
            f"with a list '{payloads.wire_field}'"
        )
        raise Problem(415, "payload-type", detail)
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            chunks = [chunk async for chunk in _counted(call, received)]
    except TimeoutError:
        raise _too_slow() from None
    body = b"".join(chunks)
    if cost := tokens_of_body(len(body)):
        service.rate_limiter.take(key.id, cost)
    return body


def request_body(service: Service) -> tuple[dict[str, Any], dict[str, Any]]:
    """The OpenAPI description of the body that this workspace takes, and the schemas that it refers to."""
    field = service.payload_format.wire_field
    most = {"type": "array", "minItems": 1, "maxItems": service.config.max_queries}
    if field is None:
        images = {**most, "items": {"type": "string", "format": "binary"}}
        form = {
            "schema": {"type": "object", "required": ["images"], "properties": {"images": images}},
            "encoding": {"images": {"contentType": "image/png, image/jpeg, image/webp"}},
        }
        return {"required": True, "content": {"multipart/form-data": form}}, {}
    item = service.payload_format.json_schema()
    schema = {
        "type": "object",
        "required": [field],
        "properties": {field: {**most, "items": item}},
        "additionalProperties": False,
        "examples": [{field: item.pop("examples")}],
    }
    reference = {"$ref": f"#/components/schemas/{BODY_SCHEMA}"}
    return {"required": True, "content": {"application/json": {"schema": reference}}}, {BODY_SCHEMA: schema}


async def _read_uploads(call: Call, service: Service, received: Reservation) -> list[Upload]:
    """The files of a form; they stay in memory.

    Args:
        call: to read.
        service: has the limits.
        received: holds what was declared, and grows with what arrives beyond.

    Raises:
        Problem: the form is invalid, has too many files, or takes too long to arrive.
    """
    if not call.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(415, "form", "The content type is not multipart/form-data; send images as a form")
    max_files = service.config.max_queries
    chunks = _counted(call, received)
    parser = MultiPartParser(call.headers, chunks, max_files=max_files, max_fields=0)
    parser.spool_max_size = service.config.max_upload_mb << 20  # larger files would be written to disk
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            form = await parser.parse()
    except TimeoutError:
        raise _too_slow() from None
    except (MultiPartException, KeyError, ValueError) as error:
        detail = f"Malformed form; send at most {max_files} files named 'images' and nothing else"
        raise Problem(400, "form", detail) from error
    try:
        if not form or set(form) != {"images"}:
            raise Problem(400, "form", "Unexpected fields in the form; send files named 'images' and nothing else")
        files = [value for value in form.getlist("images") if isinstance(value, UploadFile)]
        return [Upload(await file.read(), file.content_type) for file in files]
    finally:
        await form.close()


def _too_slow() -> Problem:
    return Problem(408, "slow", "The upload took too long", headers={"Connection": "close"})


def _declared_bytes(call: Call) -> int:
    """The bytes of a body if they are declared, to be reserved before any is received; 0: they are not.

    Of many uploads at once, those for which there is no room would each be received for nothing up to its share.
    """
    return int(call.headers.get("content-length", 0))


async def _counted(call: Call, received: Reservation) -> AsyncGenerator[bytes, None]:
    """Chunks of a body; what was not declared of them is reserved before it is kept."""
    left = _declared_bytes(call)
    async for chunk in call.stream():
        left -= len(chunk)
        if left < 0:
            received.add(-left)
            left = 0
        yield chunk
