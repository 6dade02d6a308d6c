"""Predictions, and what answers them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from PIL import Image
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from lmeraser.inference.predictor import Prediction
from lmeraser.service.access import needs
from lmeraser.service.problems import Fault, Problem, documented
from lmeraser.service.service import Service, service_of
from lmeraser.service.uploads import one_image
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.freshness import up_to_date

router = APIRouter(tags=["predictions"])

Asking = Annotated[ApiKey, Depends(needs("predict"))]
Looking = Annotated[ApiKey, Depends(needs("predict", "read"))]

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                    },
                },
                "encoding": {"images": {"contentType": "image/png, image/jpeg, image/webp"}},
            }
        },
    }
}


class PredictionResponse(BaseModel):
    """The answer for one image.

    Attributes:
        label: index of the most probable class.
        class_name: its name.
        probability: of that class.
        clusters: numbers of the clusters that were asked.
        rerouted: whether others would have been asked, were they not quarantined.
    """

    label: int
    class_name: str
    probability: float
    clusters: list[int]
    rerouted: bool

    @classmethod
    def of(cls, prediction: Prediction) -> PredictionResponse:
        """Of a prediction."""
        return cls(**{**prediction.__dict__, "clusters": list(prediction.clusters)})


class Answered(BaseModel):
    """The answers for the images of one call, all of one generation.

    Attributes:
        generation: that answered.
        model_digest: of it.
        answers: in the order of the images.
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
    answers: list[PredictionResponse]


class ServedModel(BaseModel):
    """The model that answers.

    Attributes:
        generation: its number.
        model_digest: of all of its tensors and settings; equal digests are equal models.
        fingerprints: the environments that it was made in.
        classes: names, in the order of the labels.
        records: that it was derived from.
        clusters: how many it has.
        quarantined: numbers of those that are not asked now.
        up_to_date: whether it is the model of the records and settings held now.
    """

    model_config = ConfigDict(protected_namespaces=())

    generation: int
    model_digest: str
    fingerprints: list[str]
    classes: list[str]
    records: int
    clusters: int
    quarantined: list[int]
    up_to_date: bool


@router.post(
    "/predict",
    response_model=Answered,
    openapi_extra=_FORM,
    responses=documented(400, 401, 403, 413, 415, 422, 429, 503),
)
async def predict(call: Call, key: Asking) -> Answered:
    """Classify images (scope `predict`): one or many files named `images`, as a form.

    No cluster and no global head answers that holds a record whose deletion was accepted before the call began.
    """
    service = service_of(call)
    uploads, most = await _uploads(call, service), service.config.max_megapixels * 1e6
    images = [await run_in_threadpool(_image, n, *upload, most_pixels=most) for n, upload in enumerate(uploads)]
    answers = await asyncio.wrap_future(service.predictions.ask(images))
    service.metrics.images.inc(len(images))
    service.metrics.rerouted.inc(sum(one.rerouted for one in answers.predictions))
    model = answers.by.model
    return Answered(
        generation=model.generation,
        model_digest=model.model_digest,
        answers=[PredictionResponse.of(one) for one in answers.predictions],
    )


@router.get("/model", response_model=ServedModel, responses=documented(401, 403, 429, 503))
def model(call: Call, key: Looking) -> ServedModel:
    """Tell which model answers (scope `predict` or `read`)."""
    service = service_of(call)
    current = service.served.current
    found = current.model
    return ServedModel(
        generation=found.generation,
        model_digest=found.model_digest,
        fingerprints=list(found.fingerprints),
        classes=list(found.classes),
        records=found.records,
        clusters=len(found.clusters),
        quarantined=sorted(current.waiting.clusters),
        up_to_date=up_to_date(service.workspace, found),
    )


async def _uploads(call: Call, service: Service) -> list[tuple[bytes, str | None]]:
    """The files of a form, with their stated types; they stay in memory.

    Raises:
        Problem: it is no such form, or has too many files.
    """
    if not call.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(415, "form", "Images come as a form: multipart/form-data.")
    most = service.config.max_images
    parser = MultiPartParser(call.headers, call.stream(), max_files=most, max_fields=0)
    parser.spool_max_size = service.config.max_upload_mb << 20  # beyond, they would be put on the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        rule = f"A form has at most {most} files named 'images', nothing else, and is complete."
        raise Problem(400, "form", rule) from error
    try:
        if not form or set(form) != {"images"}:
            raise Problem(400, "form", "A form has one or more files named 'images', and nothing else.")
        files = [value for value in form.getlist("images") if isinstance(value, UploadFile)]
        return [(await file.read(), file.content_type) for file in files]
    finally:
        await form.close()


def _image(number: int, data: bytes, stated: str | None, *, most_pixels: float) -> Image.Image:
    try:
        return one_image(data, stated=stated, most_pixels=most_pixels)
    except Problem as problem:
        problem.faults.append(Fault(where=f"images.{number}", rule=problem.detail))
        raise
