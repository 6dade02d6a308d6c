"""Reading of payloads that are sent as JSON: `{"texts": ["...", ...]}`, `{"vectors": [[...], ...]}`.

Steps of a call:
1. its body is read item by item, so that nothing is built of what cannot be a payload, or is one too many: ten
   million empty lists fit in a body, and would stop all threads for seconds;
2. each item is checked by the format of payloads (`data.modalities`);
3. each is made ready for the served model, which for a text is to divide it into tokens;
4. a call for which this takes too long is rejected, and what it has not begun is dropped.

Nothing else runs in these threads. Those of step 3 run at a lower priority; there are only a few, so what a call
that was given up has begun is little. Knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn

from lmeraser.core.thread_priority import lower_priority
from lmeraser.data.modalities import PayloadFormat
from lmeraser.models.modalities import InputEncoder
from lmeraser.service.limits import SharedThread
from lmeraser.service.model_holder import ModelHolder, ServedModel
from lmeraser.service.problems import MAX_FAULTS, Fault, Problem, invalid

_SECONDS = 30.0  # for all payloads of a call
_PLACES = 32  # of bodies that wait
_SPACE = r"[ \t\n\r]*"
_OPENING = re.compile(rf'{_SPACE}\{{{_SPACE}"([a-z_]{{1,40}})"{_SPACE}:{_SPACE}\[{_SPACE}')
_BETWEEN = re.compile(rf"{_SPACE}([,\]]){_SPACE}")
_CLOSING = re.compile(rf"{_SPACE}\}}{_SPACE}")


@dataclass(frozen=True)
class ReadPayloads:
    """The payloads of one call.

    Attributes:
        items: in their order, as the encoder gives them.
        encoder: of the model that they were made ready for.
    """

    items: list[Any]
    encoder: InputEncoder[Any, Any]

    def fit(self, served: ServedModel) -> bool:
        """Whether this model takes them."""
        return served.encoder is self.encoder


class PayloadReader:
    """Reads the JSON bodies of all callers who want predictions.

    Args:
        model_holder: has the encoder of the served model.
        payload_format: of the workspace.
        most: payloads of one call.
        threads: that make payloads ready.
        nice: by how much to lower their priority (Linux).
        seconds: in which all payloads of a call have to be ready.
    """

    def __init__(
        self,
        model_holder: ModelHolder,
        payload_format: PayloadFormat,
        *,
        most: int,
        threads: int,
        nice: int = 0,
        seconds: float = _SECONDS,
    ) -> None:
        self._model_holder = model_holder
        self._format = payload_format
        self._most = most
        self._seconds = seconds
        # At its normal priority: a thread that is not scheduled while it holds the GIL holds up all others.
        self._parser = SharedThread("payload-parser", _PLACES)
        self._encoding = ThreadPoolExecutor(threads, "payload-encoder", lower_priority, (nice,))

    def stop(self) -> None:
        """Drop what has not begun, and end the threads."""
        self._parser.stop()
        self._encoding.shutdown(cancel_futures=True)

    async def read(self, caller: str, body: bytes) -> ReadPayloads:
        """Read the payloads of one call, at least one.

        Raises:
            Problem: the body is not as described, a payload violates a rule, or they are too many for now.
            NoModelError: there is no model to make them ready for.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                payloads = await self._parser.run(caller, self._payloads, body)
                encoder = await loop.run_in_executor(self._encoding, self._current_encoder)
                futures = [self._encoding.submit(encoder.load, payload) for payload in payloads]
                try:
                    items = await asyncio.gather(*map(asyncio.wrap_future, futures))
                finally:
                    for future in futures:
                        future.cancel()
        except TimeoutError:
            detail = f"Reading the {self._format.noun}s took too long; send fewer or smaller ones"
            raise Problem(503, "busy", detail, headers={"Retry-After": "5"}) from None
        return ReadPayloads(items, encoder)

    def _current_encoder(self) -> InputEncoder[Any, Any]:
        return self._model_holder.encoder

    def _payloads(self, body: bytes) -> list[bytes]:
        """The payloads of a body (steps 1 and 2); all faults are listed, up to a limit."""
        payloads: list[bytes] = []
        faults: list[Fault] = []
        for number, value in enumerate(self._values(body)):
            if number == self._most:
                noun = self._format.noun
                raise Problem(422, "too-many", f"Too many {noun}s in one call (at most {self._most})")
            try:
                payloads.append(self._format.of_json(value))
            except ValueError as error:
                reason = str(error)
                faults.append(self._fault(number, reason[:1].upper() + reason[1:]))
                if len(faults) == MAX_FAULTS:
                    break
        if faults:
            raise Problem(422, self._format.noun, faults[0].message, faults=faults)
        return payloads

    def _values(self, body: bytes) -> Iterator[Any]:
        """The items of the list, one after the other; raises if the body is not as described."""
        try:
            text = body.decode()
        except ValueError:
            _malformed()
        opening = _OPENING.match(text)
        if opening is None:
            self._unexpected(text)
        if opening[1] != self._format.wire_field:
            self._unexpected(text)
        at = opening.end()
        separator = ","
        number = 0
        while separator == ",":
            value, at = self._value(text, at, number)
            yield value
            between = _BETWEEN.match(text, at)
            if between is None:
                _malformed()
            separator = between[1]
            at = between.end()
            number += 1
        if _CLOSING.fullmatch(text, at) is None:
            self._unexpected(text)

    def _value(self, text: str, at: int, number: int) -> tuple[Any, int]:
        """The item that begins here, a string or a list without lists, and where it ends."""
        begins = text[at : at + 1]
        try:
            if begins == '"':
                return _DECODER.raw_decode(text, at)
            end = text.find("]", at) + 1
            if begins == "[" and end and "[" not in text[at + 1 : end] and end - at <= self._format.wire_bytes:
                return json.loads(text[at:end], parse_constant=_no_number), end
        except (ValueError, RecursionError):
            _malformed()
        if begins == "]" and number == 0:
            message = f"Too short (at least 1 {self._format.noun})"
            raise Problem(400, "invalid", message, faults=[Fault(where=self._field, message=message)])
        if not begins or (begins == "[" and "]" not in text[at:]):
            _malformed()
        fault = self._fault(number, f"Not a {self._format.noun}")
        raise Problem(422, self._format.noun, fault.message, faults=[fault])

    @property
    def _field(self) -> str:
        return str(self._format.wire_field)

    def _fault(self, number: int, message: str) -> Fault:
        return Fault(where=f"{self._field}.{number}", message=message)

    def _unexpected(self, text: str) -> NoReturn:
        """Refuse a body that is another one than this workspace takes, or no JSON at all."""
        if not text.lstrip(" \t\n\r").startswith("{"):
            _malformed()
        detail = f"This workspace holds {self._format.noun}s; send a list '{self._field}' of them and nothing else"
        raise Problem(
            422, "payload-type", detail, faults=[Fault(where=self._field, message="Missing or not alone")]
        )


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and infinities are not in JSON


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _malformed() -> NoReturn:
    raise invalid([{"loc": (), "type": "json_invalid"}])
