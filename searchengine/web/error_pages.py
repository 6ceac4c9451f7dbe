"""Every error as a sentence: on a page, or in JSON where the client prefers that."""

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
from searchengine.web.indexes import this_site
from searchengine.web.queries import RequestError, wants_json
from searchengine.web.uploads import drain, too_many_bytes

errors = Blueprint("errors", __name__)

# A body beyond the limit is read and dropped up to this many times the limit, so that the browser hears our answer.
_DRAIN_TIMES = 8

_RETRY_SECONDS = "10"  # after which a server that was away may be back

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
    403: "Not from there",
    404: "Nothing here",
    405: "Not that way",
    413: "Too large",
    415: "Not a picture",
    422: "A damaged picture",
    500: "Something broke here",
    503: "Not ready",
}
_SENTENCES = {
    400: "The server could not read that request. Go back to the first page and try again.",
    404: "There is no such page. The link may be old, or mistyped.",
    405: "This page does not take that kind of request.",
    500: "An error on our side; its details are in the server's log. Try again, and if it stays, restart the server.",
}


@errors.app_errorhandler(RequestError)
def request_error(error: RequestError) -> Response:
    """A request that cannot be answered as it stands."""
    return _error_response(str(error), error.status)


@errors.app_errorhandler(SearchEngineError)
def search_engine_error(error: SearchEngineError) -> Response:
    """Any other error of ours, with the status of its kind."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            title = "Its file is gone" if kind is FileGoneError else None
            return _error_response(str(error), status, title)
    current_app.logger.error("%s", error)
    response = _error_response(str(error), HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, IndexUnavailableError):
        response.headers["Retry-After"] = _RETRY_SECONDS
    return response


@errors.app_errorhandler(OSError)
def unusable_file(error: OSError) -> Response:
    """A file of an index that cannot be used."""
    sentence = file_error(error)
    current_app.logger.error("%s", sentence)
    return _error_response(sentence, HTTPStatus.SERVICE_UNAVAILABLE)


@errors.app_errorhandler(RequestEntityTooLarge)
def too_large(error: RequestEntityTooLarge) -> Response:
    """An upload beyond the limit, whose rest is read first."""
    max_bytes = this_site().settings.max_upload_bytes
    drain(request.environ, max_bytes * _DRAIN_TIMES)
    refusal = too_many_bytes(max_bytes)
    return _error_response(str(refusal), refusal.status)


@errors.app_errorhandler(SecurityError)
def unknown_host(error: SecurityError) -> Response:
    """A host name that is none of the server's."""
    # No page: its addresses would be built from a host name that is not to be trusted.
    sentence = (
        "The server does not answer to this name. Set SEARCHENGINE_HOSTS to the names that it is to answer to, "
        "separated by commas.\n"
    )
    return Response(sentence, HTTPStatus.BAD_REQUEST, mimetype="text/plain")


@errors.app_errorhandler(BadHost)
def impossible_host(error: BadHost) -> Response:
    """A host name that no server can have."""
    sentence = "The name of the server in this request cannot be that of any server: check the address.\n"
    return Response(sentence, HTTPStatus.BAD_REQUEST, mimetype="text/plain")


@errors.app_errorhandler(HTTPException)
def http_error(error: HTTPException) -> ResponseReturnValue:
    """What Flask and Werkzeug refuse, with its headers, such as Allow on a 405."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST:
        return error  # a redirect
    response = _error_response(_SENTENCES.get(status, error.description or _SENTENCES[400]), status)
    for name, value in error.get_headers():
        if name.lower() not in {"content-type", "content-length"}:
            response.headers[name] = value
    return response


def _asked(status: int) -> list[tuple[str, str]]:
    """What an address says, to be put right where it is refused."""
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
            page = render_template("error.html", title=title, message=message, status=status, asked=_asked(status))
        except Exception:  # whatever is wrong, the sentence is shown
            current_app.logger.exception("The error page failed")
            page = f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1><p>{escape(message)}</p></html>"
        response = Response(page)
    response.status_code = status
    return response
