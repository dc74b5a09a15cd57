"""TLS as a flow declares it: our certificate and key (mutual TLS), whom we trust, and how long certificates are good."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509

from counterfoil.connectors.auth import resolve
from counterfoil.flows.delivery import Tls
from counterfoil.model.errors import Misconfigured

REMEDY = "Look at `tls` of the flow: files in the project folder, PEM, the key not encrypted."


def context_of(tls: Tls, folder: Path, environment: Mapping[str, str], now: datetime) -> ssl.SSLContext | None:
    """None: the usual checks with the machine's own authorities. Raises Misconfigured for files that do not serve."""
    if tls == Tls():
        return None
    authority = _file(tls.authority, folder, environment)
    certificate, key = _file(tls.certificate, folder, environment), _file(tls.key, folder, environment)
    try:
        context = ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError) as error:
        raise Misconfigured(f"The authority's certificate can't be used: {_why(error)}.", REMEDY) from error
    if certificate is None:
        return context
    _still_good(Path(certificate), now)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise Misconfigured(f"Our certificate and key can't be used together: {_why(error)}.", REMEDY) from error
    return context


def days_left(tls: Tls, folder: Path, environment: Mapping[str, str], now: datetime) -> float | None:
    """Of our own certificate; None where there is none."""
    certificate = _file(tls.certificate, folder, environment)
    return None if certificate is None else (_ends(Path(certificate)) - now).total_seconds() / 86400


def _file(name: str | None, folder: Path, environment: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    path = Path(folder, resolve(name, environment))
    if not path.is_file():
        raise Misconfigured(f"The file `{name}` of `tls` is not there.", REMEDY)
    return str(path)


def _still_good(path: Path, now: datetime) -> None:
    ends = _ends(path)
    if ends <= now:
        raise Misconfigured(
            f"Our certificate `{path.name}` ended on {ends:%Y-%m-%d}.", "Get a new one from its issuer."
        )


def _ends(path: Path) -> datetime:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (ValueError, OSError) as error:
        raise Misconfigured(f"`{path.name}` holds no certificate in PEM.", REMEDY) from error


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
