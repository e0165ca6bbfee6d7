"""Holds every answer of the API against /openapi.json: a hook of the client that all tests of the API ask with."""

import re
from collections.abc import Callable
from typing import Any, Final

import fastjsonschema
import httpx
from fastapi import FastAPI

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
NO_JSON: Final = ("text/vtt", "text/event-stream")


class Described:
    def __init__(self, app: FastAPI) -> None:
        self.document = app.openapi()
        # In the order of the routes: /channels/live is not a channel's name.
        self._paths = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in self.document["paths"]]
        self._validators: dict[str, Callable[[Any], Any]] = {}

    async def check(self, answer: httpx.Response) -> None:
        """Fails for an answer that the document does not describe."""
        method = answer.request.method.lower()
        path = next((path for form, path in self._paths if form.fullmatch(answer.request.url.path)), None)
        operation = self.document["paths"].get(path, {}).get(method)
        if not answer.request.url.path.startswith(("/api/", "/webhooks/")):
            return
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if answer.status_code >= 400:
            described = {"$ref": "#/components/schemas/ProblemDetails"}
            if operation is not None:
                described = operation["responses"]["default"]["content"][kind]["schema"]
        else:
            said = operation["responses"][str(answer.status_code)]
            if answer.status_code == 204:
                assert "content" not in said
                return
            described = said["content"][kind]["schema"]
        if kind not in NO_JSON:
            await answer.aread()
            self.validate(described, answer.json())

    def validate(self, schema: dict[str, Any], value: Any) -> None:
        key = str(schema)
        if key not in self._validators:
            # Beside a reference nothing is read (JSON Schema draft 7, 8.3): it goes one level down.
            whole = {"$schema": DRAFT, "allOf": [schema], "components": self.document["components"]}
            self._validators[key] = fastjsonschema.compile(whole)
        self._validators[key](value)
