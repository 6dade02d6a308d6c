"""Tokenizers of checkpoints: texts as windows of token ids.

    special, prefix, part of the body, special

A text that fits in one window is tokenized exactly as its publisher does. The body of a longer one is divided
into consecutive parts, each between the same tokens. Only tokenizers of the library ``tokenizers`` are used: they
are deterministic, take calls from several threads, and run no code of the checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.location import Location

_VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"),
    *("spiece.model", "sentencepiece.bpe.model", "spm.model"),
)
_RARE = "\U0001f600 \u6771\u4eac"  # characters that a small vocabulary lacks
_FILES = (*_VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


class TextTokenizer:
    """A checkpoint's tokenizer.

    Args:
        location: of the checkpoint.
        name: ``backbone.name``, for errors.
        subfolder: of the tokenizer's files.
        prefix: put before every text.
        lower: whether texts are made lower case.

    Attributes:
        digest: of its files.
        size: one more than the largest token id.
        pad: a token id for places without token.
        fixed: number of tokens before the body in every window.

    Raises:
        BackboneError: it has no tokenizer, or one that needs more than the library ``tokenizers``.
    """

    digest: Digest
    size: int
    pad: int
    fixed: int

    def __init__(self, location: Location, name: str, *, subfolder: str, prefix: str, lower: bool) -> None:
        files = _files(location, subfolder)
        if not any(file in files for file in _VOCABULARIES):
            raise _unusable(name, "its checkpoint has no tokenizer")
        self.digest = Digest.of_json(
            {file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in files.items()}
        )
        tokenizer = _load(location, name, subfolder)
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise _unusable(name, "its tokenizer is not one of the library tokenizers")
        backend.no_truncation()
        backend.no_padding()
        if lower:
            from tokenizers import normalizers

            steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
            backend.normalizer = normalizers.Sequence(steps)
        self._backend = backend
        self._tokenizer = tokenizer
        self._prefix = prefix
        self.size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        pad = getattr(tokenizer, "pad_token_id", None)
        self.pad = int(pad) if pad is not None else 0
        try:
            head, before, _, tail = self._parts("a")
            self._parts(_RARE)
        except Exception as error:  # a vocabulary without the token for what is not in it, for instance
            raise _unusable(name, str(error).partition("\n")[0] or type(error).__name__) from error
        self.fixed = len(head) + len(before)
        self._around = self.fixed + len(tail)

    def save(self, folder: Path, longest: int) -> None:
        """Write it as transformers reads it, without prefix, with the limit of a window."""
        self._tokenizer.model_max_length = longest
        self._tokenizer.save_pretrained(folder)

    def room(self, limit: int) -> int:
        """Number of tokens of the body in a window of ``limit`` tokens."""
        return limit - self._around

    def prefix_alone(self) -> int:
        """Number of tokens of the prefix as a text of its own, with the special ones before it.

        A publisher who does not pool the prefix leaves out so many.
        """
        of_text = [sequence is not None for sequence in self._backend.encode(self._prefix).sequence_ids]
        return len(of_text) - (of_text[::-1].index(True) if True in of_text else 0)

    def windows(self, text: str, limit: int, most: int) -> list[NDArray[np.int64]]:
        """The windows of a text.

        Args:
            text: the text.
            limit: tokens in a window, at most.
            most: windows, at most; of more, so many that are evenly spaced, the first and the last among them.
        """
        head, before, body, tail = self._parts(text)
        size = limit - len(head) - len(before) - len(tail)
        count = max(1, -(-len(body) // size))
        numbers = range(count) if count <= most else _evenly(count, most)
        windows = [[*head, *before, *body[size * n : size * (n + 1)], *tail] for n in numbers]
        return [np.asarray(window or [self.pad], dtype=np.int64) for window in windows]

    def _parts(self, text: str) -> tuple[list[int], list[int], list[int], list[int]]:
        """Token ids: special ones, those of the prefix, of the text, and special ones."""
        # As a batch, because the library lets other threads run meanwhile only then; a long text takes a second.
        (encoding,) = self._backend.encode_batch([self._prefix + text])
        ids: Sequence[int] = encoding.ids
        of_text = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
        first, end = (of_text[0], of_text[-1] + 1) if of_text else (len(ids), len(ids))
        middle = first
        # A token across the border belongs to the text.
        while self._prefix and middle < end and encoding.offsets[middle][1] <= len(self._prefix):
            middle += 1
        return list(ids[:first]), list(ids[first:middle]), list(ids[middle:end]), list(ids[end:])


def _evenly(count: int, most: int) -> list[int]:
    """So many of the numbers below ``count``, evenly spaced, with the first and the last."""
    if most == 1:
        return [0]
    return [(2 * n * (count - 1) + most - 1) // (2 * (most - 1)) for n in range(most)]


def _files(location: Location, subfolder: str) -> dict[str, Path]:
    """The tokenizer's files by their names."""
    names = {file: f"{subfolder}/{file}" if subfolder else file for file in _FILES}
    paths = {file: location.file(path) for file, path in names.items()}
    return {file: path for file, path in paths.items() if path is not None}


def _load(location: Location, name: str, subfolder: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(location.name, subfolder=subfolder, **location.loading)
    except Exception as error:  # transformers raises OSError, ValueError, ImportError... with long explanations
        lines = str(error).strip().splitlines()
        text = str(error)
        needed = [library for library in ("sentencepiece", "tiktoken") if library in text]
        if "trust_remote_code" in text:
            why = "its tokenizer is code of its own, which is never run"
        elif needed:
            why = f"its tokenizer needs the library {needed[0]}, which is not installed"
        else:
            why = lines[0] if lines else type(error).__name__
        raise _unusable(name, why) from error


def _unusable(name: str, why: str) -> BackboneError:
    return BackboneError(
        "The backbone's tokenizer cannot be used",
        got=f"{name}: {why}",
        next_step="put the publisher's tokenizer.json beside the weights, or choose another model",
    )
