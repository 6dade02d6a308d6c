"""A certificate is given out in three forms, on the command line and in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import DIGIT_COLUMNS, NOW, Run, digits, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.certificate import verify
from lmeraser.evidence.certificate_pdf import to_pdf
from lmeraser.evidence.presentation import render


@pytest.fixture
def eraser(tmp_path: Path) -> Iterator[Eraser]:
    with Eraser.create(tmp_path / "w", tiny_config(), clock=lambda: NOW) as made:
        made.session.executors.use(Fake())
        made.add(digits(range(8)), columns=DIGIT_COLUMNS)
        yield made


def test_one_certificate_in_three_forms_lists_the_receipts_of_others(
    eraser: Eraser, tmp_path: Path, run: Run
) -> None:
    root, request = eraser.workspace.root, eraser.request(ids=["digit-0003"])
    receipt = tmp_path / "receipt"
    receipt.write_bytes(b"deleted from the warehouse")
    attach = ("-w", root, "requests", "attach", request.id)
    told = run(*attach, "warehouse", "--file", receipt, "--json").json
    assert told == [{"system": "warehouse", "digest": Digest.of(receipt.read_bytes())}]
    other = "sha256:" + "2" * 64
    assert (
        run(*attach, "vector store", "--digest", other).out
        == f"{told[0]['digest']} warehouse\n{other} vector store\n"
    )
    for wrong in (
        (),
        ("--digest", "md5:1"),
        ("--file", receipt, "--digest", other),
        ("--file", tmp_path / "none"),
    ):
        assert run(*attach, "x", *wrong).code == 2
    refused = run("-w", root, "certificate", request.id)
    assert refused.code == 2
    assert "no certificate" in refused.err
    with pytest.raises(InputError, match="no certificate"):
        eraser.certificate(request.id)
    (path,) = eraser.unlearn(request=request.id).certificates
    facts = verify(Path(path).read_bytes(), eraser.workspace.signing_key.public)
    assert [each["system"] for each in facts["receipts"]] == ["warehouse", "vector store"]
    assert [each.system for each in eraser.receipts(request.id)] == ["warehouse", "vector store"]
    assert eraser.certificate(request.id) == Path(path).read_bytes()
    assert eraser.certificate(request.id, "text").decode() == render(facts)
    assert eraser.certificate(request.id, "pdf") == to_pdf(facts)
    assert run("-w", root, "certificate", request.id).out == render(facts)
    for form in ("json", "text", "pdf"):
        out = tmp_path / f"certificate.{form}"
        assert run("-w", root, "certificate", request.id, "--format", form, "--out", out).code == 0
        assert out.read_bytes() == eraser.certificate(request.id, form)
    assert run("-w", root, "certificate", request.id, "--format", "pdf").code == 2
    assert run(*attach, "late", "--digest", other).code == 2


def test_what_is_shown_to_people_was_verified(eraser: Eraser) -> None:
    (path,) = eraser.unlearn(ids=["digit-0003"]).certificates
    request = Path(path).stem
    Path(path).write_bytes(Path(path).read_bytes().replace(b'"sig": "', b'"sig": "AA'))
    for form in ("json", "text", "pdf"):
        with pytest.raises(VerificationError):
            eraser.certificate(request, form)


def test_the_certificate_of_another_request_is_not_handed_out(eraser: Eraser) -> None:
    """Both are signed and in the ledger; only the request tells which one is its own."""
    one, other = (Path(eraser.unlearn(ids=[name]).certificates[0]) for name in ("digit-0003", "digit-0004"))
    own = one.read_bytes()
    one.write_bytes(other.read_bytes())
    for form in ("json", "text", "pdf"):
        with pytest.raises(VerificationError, match="Not the certificate that was issued for this request"):
            eraser.certificate(one.stem, form)
    one.unlink()
    with pytest.raises(InputError, match="is missing"):
        eraser.certificate(one.stem)
    one.write_bytes(own)
    assert eraser.certificate(one.stem) == own


def test_the_controller_is_named_where_a_setting_says_so(tmp_path: Path) -> None:
    config = Config.model_validate({**tiny_config().model_dump(), "requests": {"controller": "Example Ltd"}})
    with Eraser.create(tmp_path / "w", config, clock=lambda: NOW) as made:
        made.session.executors.use(Fake())
        made.add(digits(range(8)), columns=DIGIT_COLUMNS)
        (path,) = made.unlearn(ids=["digit-0003"]).certificates
        assert "Issued by          Example Ltd\n" in made.certificate(Path(path).stem, "text").decode()
