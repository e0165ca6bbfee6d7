"""What /openapi.json says: the framework's own description, with our problems in place of its errors.

Called by `gateways.http.app`.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from gateways.errors import STATUS
from gateways.http.answers import ProblemDetails

PROBLEM_TYPE: Final = "application/problem+json"
_REFERENCE: Final = "#/components/schemas/{model}"
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete"})


def describe(app: FastAPI) -> dict[str, Any]:
    """Made once: routes do not change."""
    if app.openapi_schema is None:
        app.openapi_schema = _described(app)
    return app.openapi_schema


def _described(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document["components"]["schemas"]
    for theirs in ("HTTPValidationError", "ValidationError"):
        schemas.pop(theirs, None)
    _, problems = models_json_schema([(ProblemDetails, "serialization")], ref_template=_REFERENCE)
    schemas |= problems["$defs"]
    schemas["ProblemDetails"]["properties"]["code"]["examples"] = sorted(STATUS)
    problem = {
        "description": "A problem; `code` says which",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": _REFERENCE.format(model="ProblemDetails")}}},
    }
    for path in document["paths"].values():
        for method, operation in path.items():
            if method in _METHODS:
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
    return document
