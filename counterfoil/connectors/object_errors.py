"""What an object store says, in our words: obstore's exceptions made into connector errors. Nothing else of obstore's leaves this floor.

Its texts hold addresses and whole replies. Only a status, a code of S3 or an error number is taken out of them, never the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from obstore.exceptions import AlreadyExistsError, NotSupportedError

from counterfoil.model.errors import ConnectorError, Gone, Misconfigured, Refused, Throttled, TooLarge, Transient

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_NUMBER = re.compile(r"\(os error (\d+)\)")
_CONDITIONS = frozenset({400, 405, 411, 501})  # what servers answer that know no conditional write or copy
_LOGIN = "Look at `access_key` and `secret_key` in [objects], and at what they may do in that bucket."
_OF_HOST = re.compile(r"latest/api/token|security-credentials|/v2/credentials")  # where a host's role is asked for


def status_of(error: Exception) -> int | None:
    """The HTTP status in an error of the store; None: there was no reply."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def knows_no_condition(error: Exception) -> bool:
    """Whether the store says that it cannot write only where nothing is yet."""
    return isinstance(error, NotSupportedError | NotImplementedError) or status_of(error) in _CONDITIONS


def translated(error: Exception, key: str, place: str) -> ConnectorError:
    """The connector error for what obstore raised about `key` (it may be "") in the store at `place`."""
    said = str(error)
    code = found[1] if (found := _CODE.search(said)) else ""
    status = status_of(error)
    what = f"`{key}` in the object store {place}" if key else f"the object store {place}"
    if isinstance(error, AlreadyExistsError):
        return exists(key, place)
    if code in _BY_CODE:
        return _BY_CODE[code](what)
    if isinstance(error, FileNotFoundError) or status == 404:
        return gone(key, place)
    if _OF_HOST.search(said):
        return Misconfigured(
            f"The object store {place} has no credentials: this host has no role that gives some.",
            "Set `access_key` and `secret_key` in [objects].",
        )
    return _by_status(status, what) if status else _without_reply(said, what)


def exists(key: str, place: str) -> Refused:
    return Refused(
        f"There is another object `{key}` in the object store {place} already; it is never overwritten.",
        "Hand the file in under another name.",
        fault="object_exists",
    )


def gone(key: str, place: str) -> Gone:
    return Gone(
        f"There is no object `{key}` in the object store {place}.",
        "It was removed, or the key is wrong: hand the file in again.",
        fault="object_missing",
    )


def changed(key: str) -> Refused:
    return Refused(
        f"The object `{key}` is not the one that was handed in: its size or hash is another.",
        "Find out who wrote it, and hand the file in again.",
        fault="object_changed",
    )


def too_large(key: str, most: int) -> TooLarge:
    return TooLarge(
        f"The object `{key}` has more than {most} bytes.",
        "Raise the limit, if that is expected.",
        fault="file_too_large",
    )


def _by_status(status: int, what: str) -> ConnectorError:
    if status in (401, 403):
        return Misconfigured(f"The login may not touch {what} ({status}).", _LOGIN)
    if status in (301, 307):
        return _region(what)
    if status in (429, 503):
        return _throttled(what)
    if status >= 500 or status == 408:
        return Transient(f"The server of {what} answered {status}.", "It is tried again.", fault="objects_failed")
    return Refused(f"The server refused {what} ({status}).", "Look at the log of that server.", fault="objects_refused")


def _without_reply(said: str, what: str) -> ConnectorError:
    number = int(found[1]) if (found := _NUMBER.search(said)) else None
    if number in _BY_NUMBER and "HTTP error" not in said:
        return _BY_NUMBER[number](what)
    if "builder error" in said:
        return Misconfigured(f"The address of {what} is none.", "Look at `endpoint` in [objects].")
    if "certificate" in said.lower():
        return Misconfigured(
            f"The TLS certificate of {what} is not valid for this machine.",
            "Look at `endpoint` in [objects], the date of the certificate and this machine's certificate authorities.",
        )
    if "HTTP error" in said or "HttpError" in said or "reqwest" in said:
        return Transient(f"No reply from {what}.", "Is it reachable from this host?", fault="objects_unreachable")
    return Transient(f"Reading or writing {what} failed.", "Look at its disk.", fault="objects_failed")


def _throttled(what: str) -> ConnectorError:
    return Throttled(f"The server of {what} asks for less.")


def _region(what: str) -> ConnectorError:
    return Misconfigured(f"The bucket of {what} is in another region.", "Look at `region` in [objects].")


def _signature(what: str) -> ConnectorError:
    return Misconfigured(f"The secret key for {what} is wrong.", _LOGIN)


def _access_key(what: str) -> ConnectorError:
    return Misconfigured(f"The access key for {what} is unknown there.", _LOGIN)


def _expired(what: str) -> ConnectorError:
    return Misconfigured(f"The login for {what} has expired.", _LOGIN)


def _bucket(what: str) -> ConnectorError:
    return Misconfigured(f"There is no bucket for {what}.", "Look at `url` in [objects], or make the bucket.")


def _clock(what: str) -> ConnectorError:
    return Misconfigured(
        f"The clock of this host differs from that of {what}.", "Set the clock right: signatures hold the time."
    )


def _rights(what: str) -> ConnectorError:
    return Misconfigured(f"This process may not read or write {what}.", "Look at the rights of that folder.")


def _full(what: str) -> ConnectorError:
    return Transient(f"No room for {what}.", "Make room on that disk.", fault="objects_full")


def _no_place(what: str) -> ConnectorError:
    return Refused(
        f"A folder stands where {what} should, or an object where its folder should.",
        "Use another key.",
        fault="bad_object_key",
    )


_BY_CODE: dict[str, Callable[[str], ConnectorError]] = {
    "NoSuchBucket": _bucket,
    "SignatureDoesNotMatch": _signature,
    "InvalidAccessKeyId": _access_key,
    "ExpiredToken": _expired,
    "InvalidToken": _expired,
    "RequestTimeTooSkewed": _clock,
    "PermanentRedirect": _region,
    "AuthorizationHeaderMalformed": _region,
    "SlowDown": _throttled,
}
_BY_NUMBER: dict[int | None, Callable[[str], ConnectorError]] = {
    1: _rights,
    13: _rights,
    30: _rights,  # a disk mounted for reading only
    20: _no_place,
    21: _no_place,
    28: _full,
    122: _full,
}
