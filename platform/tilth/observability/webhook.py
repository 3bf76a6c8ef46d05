"""One message to an incoming webhook as Slack takes it: `{"text": …}` by POST; Mattermost and others take the same.

The address is the credential: no error and no log line of this file says any of it.
"""

import http.client
import json
import ssl
import time
import urllib.request
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.error import HTTPError

from pydantic import SecretStr

TIMEOUT_SECONDS = 5.0
_TRY_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
# What is wrong is the message: another may be taken.
_NOT_THIS_ONE = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
# A longer pause asked for by the other side would silence what is meant to be loud.
_LONGEST_PAUSE = 3600.0


class WebhookError(Exception):
    """The webhook did not take a message; what it said and the next step, and in how many seconds it wants the next."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RefusedError(WebhookError):
    """The webhook takes messages, but not this one."""


def check(address: SecretStr) -> None:
    """
    Raises:
        ValueError: the address is none that a message can be posted to.
    """
    if not address.get_secret_value().lower().startswith(("http://", "https://")):
        raise ValueError(
            "TILTH_ALERTS_URI is no address that begins with https:// or http://: correct it, or empty it."
        )


def post(address: SecretStr, text: str) -> None:
    """Send a message, and come back within a few seconds whatever the other side does.

    Raises:
        RefusedError: this message was not taken, and others may be.
        WebhookError: none is taken now.
    """
    check(address)
    try:
        request = urllib.request.Request(  # noqa: S310 - checked above, and the opener knows no other
            address.get_secret_value(),
            data=json.dumps({"text": _escaped(text)}).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "tilth"},
            method="POST",
        )
        with _opener().open(request, timeout=TIMEOUT_SECONDS):
            pass
    except HTTPError as error:
        with error:
            raise _refused(error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WebhookError(f"The webhook cannot be reached: {_why(error)}") from None


def _opener() -> urllib.request.OpenerDirector:
    # No handler of redirections: one to elsewhere would be followed without the message.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    return opener


def _refused(error: HTTPError) -> WebhookError:
    known = error.code in {status.value for status in HTTPStatus}
    said = f"The webhook answered {error.code}{' ' + HTTPStatus(error.code).phrase if known else ''}"
    if error.code in _NOT_THIS_ONE:
        return RefusedError(f"{said} to this message")
    if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _TRY_AGAIN:
        return WebhookError(f"{said}: its address is wrong or no longer valid; correct TILTH_ALERTS_URI")
    return WebhookError(said, min(_seconds(error.headers.get("Retry-After", "")), _LONGEST_PAUSE))


def _seconds(retry_after: str) -> float:
    """Of the header, which holds seconds or a date; 0 of what is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _why(error: Exception) -> str:
    # The text of such an error may hold the address, in parts or whole.
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    if isinstance(reason, ssl.SSLError):
        return f"{type(reason).__name__} {reason.reason or ''}".strip()
    return (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__


def _escaped(text: str) -> str:
    # Else a description that holds <!channel> would call everybody.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
