"""Error handlers: every error becomes a page with a sentence, or JSON if the client prefers it."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, current_app, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import escape
from werkzeug.exceptions import BadHost, HTTPException, RequestEntityTooLarge, SecurityError

from searchengine.errors import (
    DamagedImageError,
    FileGoneError,
    ImageTooLargeError,
    IndexUnavailableError,
    NotAnImageError,
    QueryError,
    SearchEngineError,
    UnknownImageError,
    UnknownNameError,
    file_error,
)
from searchengine.web.requests import RequestError, this_site, wants_json
from searchengine.web.uploads import too_many_bytes

errors = Blueprint("errors", __name__)

_RETRY_SECONDS = "10"  # for an index on a server that does not answer

_STATUS: list[tuple[type[SearchEngineError], HTTPStatus]] = [
    (UnknownImageError, HTTPStatus.NOT_FOUND),
    (FileGoneError, HTTPStatus.NOT_FOUND),
    (NotAnImageError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (DamagedImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ImageTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (QueryError, HTTPStatus.BAD_REQUEST),
    (UnknownNameError, HTTPStatus.BAD_REQUEST),
]

_TITLES = {
    400: "That did not work",
    403: "Not allowed",
    404: "Page not found",
    405: "Not possible here",
    413: "Too large",
    415: "Not a picture",
    422: "Damaged picture",
    500: "Something went wrong",
    503: "Not ready",
}
_SENTENCES = {
    400: "The server could not read that request. Go back to the first page and try again.",
    404: "This page does not exist. The link may be old or mistyped.",
    405: "This page does not accept that kind of request.",
    500: "The server made an error; its log has the details. Try again. If it happens again, restart the server.",
}


@errors.app_errorhandler(RequestError)
def request_error(error: RequestError) -> Response:
    """Handle a request that cannot be answered."""
    return _error_response(str(error), error.status)


@errors.app_errorhandler(SearchEngineError)
def search_engine_error(error: SearchEngineError) -> Response:
    """Handle any other error of this package, with the status of its type."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            title = "The file is gone" if kind is FileGoneError else None
            return _error_response(str(error), status, title)
    current_app.logger.error("%s", error)
    response = _error_response(str(error), HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, IndexUnavailableError):
        response.headers["Retry-After"] = _RETRY_SECONDS
    return response


@errors.app_errorhandler(OSError)
def unusable_file(error: OSError) -> Response:
    """Handle a file of an index that cannot be used."""
    message = file_error(error)
    current_app.logger.error("%s", message)
    return _error_response(message, HTTPStatus.SERVICE_UNAVAILABLE)


@errors.app_errorhandler(RequestEntityTooLarge)
def too_large(error: RequestEntityTooLarge) -> Response:
    """Handle an upload beyond the limit. The server has read, or will read, the rest of it."""
    refusal = too_many_bytes(this_site().settings.max_upload_bytes)
    return _error_response(str(refusal), refusal.status)


@errors.app_errorhandler(SecurityError)
def unknown_host(error: SecurityError) -> Response:
    """Handle a host name that is not one of the server's."""
    # Plain text: the links of a page would be built from a host name that cannot be trusted.
    message = (
        "The server does not answer to this name. Set SEARCHENGINE_HOSTS to the names that it should answer to, "
        "separated by commas.\n"
    )
    return Response(message, HTTPStatus.BAD_REQUEST, mimetype="text/plain")


@errors.app_errorhandler(BadHost)
def impossible_host(error: BadHost) -> Response:
    """Handle a host name from which Werkzeug cannot build addresses: a label is empty or too long."""
    message = "The server name in this request is not valid. Check the address.\n"
    return Response(message, HTTPStatus.BAD_REQUEST, mimetype="text/plain")


@errors.app_errorhandler(HTTPException)
def http_error(error: HTTPException) -> ResponseReturnValue:
    """Handle the errors of Flask and Werkzeug, and keep their headers, such as Allow on a 405."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST:
        return error  # a redirect
    response = _error_response(_SENTENCES.get(status, error.description or _SENTENCES[400]), status)
    for name, value in error.get_headers():
        if name.lower() not in {"content-type", "content-length"}:
            response.headers[name] = value
    return response


def _fields_to_correct(status: int) -> list[tuple[str, str]]:
    """Return the fields of an address that was refused, so that the reader can correct them."""
    if status != HTTPStatus.BAD_REQUEST or request.method != "GET":
        return []
    return [(name, text) for name, text in request.args.items(multi=True) if text]


def _error_response(message: str, status: int, title: str | None = None) -> Response:
    if wants_json():
        response = jsonify(error=message)
    else:
        default = _TITLES[400] if status < HTTPStatus.INTERNAL_SERVER_ERROR else _TITLES[500]
        title = title or _TITLES.get(status, default)
        try:
            fields = _fields_to_correct(status)
            page = render_template("error.html", title=title, message=message, status=status, fields=fields)
        except Exception:  # the message is shown in any case
            current_app.logger.exception("The error page failed")
            page = f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1><p>{escape(message)}</p></html>"
        response = Response(page)
    response.status_code = status
    return response
