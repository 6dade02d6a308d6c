"""Signature of an export in the format of OpenSSF Model Signing, which tools that know nothing of lmeraser verify.

It covers every file of the export but itself, the model card and the manifest among them. The key is the caller's,
on a curve of NIST: the format has no Ed25519, which workspaces sign with. The extra ``oms`` has the library.
"""

from __future__ import annotations

from pathlib import Path

from lmeraser.core.atomic_files import SHARED
from lmeraser.core.extras import require_extra
from lmeraser.errors import InputError
from lmeraser.inference.export.manifest import MODEL_SIGNATURE


def check_key(key: Path) -> None:
    """Check that a key can sign, before anything is written.

    Raises:
        InputError: the extra is missing, or this is no private key that the format knows.
    """
    require_extra("oms", "OpenSSF Model Signing", "model_signing")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise _no_key(f"{key}: {error.strerror}") from error
    except (TypeError, ValueError) as error:  # encrypted, or something else
        raise _no_key(f"{key}: {error}") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in _CURVES:
        raise _no_key(f"{key} holds another kind of key")


_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def _no_key(got: str) -> InputError:
    return InputError(
        "Not a private key for OpenSSF Model Signing",
        got=f"{got} (possible: PEM without password, on P-256, P-384 or P-521)",
        next_step="make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY.pem",
    )


def write_model_signature(folder: Path, key: Path) -> None:
    """Sign all files of a finished export; the folder receives ``model.sig``."""
    from model_signing import hashing, signing

    paths = hashing.Config().set_ignored_paths(paths=[Path(MODEL_SIGNATURE)], ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(paths)
    signer.sign(folder, folder / MODEL_SIGNATURE)
    (folder / MODEL_SIGNATURE).chmod(SHARED)
