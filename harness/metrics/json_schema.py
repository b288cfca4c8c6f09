"""Share of answers that are JSON of a given form."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import model_validator

from harness import extras
from harness.metrics._json import Extract, NoJson, parse
from harness.metrics._libraries import version
from harness.plugins import Metric
from harness.records import Example, Prediction


class JsonSchema(Metric):
    """1 where the answer is JSON that a JSON Schema allows, as the package jsonschema checks it: draft 2020-12, unless
    the schema's `$schema` names another. What is no JSON counts 0.

    `format` is not asserted, as the draft has it; references to other documents are not followed.
    """

    schema_file: Path | None = None
    """A file that holds the schema as JSON. Either this or `schema_table`."""
    schema_table: dict[str, Any] | None = None
    """The schema itself, as a table."""
    extract: Extract = "raw"
    """Whether the whole answer must be JSON ("raw"), or a block of it ("block"): the first fenced one marked `json`,
    else the first fenced one, else the first object whose braces balance."""

    @property
    def default_name(self) -> str:
        return "json_schema" if self.extract == "raw" else "json_schema_block"

    def identity(self, *, built: bool = False) -> dict[str, Any]:
        return super().identity(built=built) | {"jsonschema": version("jsonschema")}

    @model_validator(mode="after")
    def _is_sound(self) -> JsonSchema:
        if (self.schema_file is None) == (self.schema_table is None):
            raise ValueError("give the schema as `schema_file` or as `schema_table`, one of the two")
        assert self._validator is not None
        return self

    def measure(self, example: Example, prediction: Prediction) -> float:
        try:
            value = parse(prediction.text or "", self.extract)
        except NoJson:
            return 0.0
        return float(self._validator.is_valid(value))

    @cached_property
    def _validator(self) -> Any:
        with extras.needed("metrics"):
            from jsonschema import Draft202012Validator, SchemaError
            from jsonschema.validators import validator_for
            from referencing import Registry

        schema: Any = self.schema_table
        try:
            if self.schema_file is not None:
                schema = json.loads(self.schema_file.read_bytes())
            json.dumps(schema, allow_nan=False)
        except (OSError, ValueError, TypeError) as error:
            source = self.schema_file.name if self.schema_file is not None else "`schema_table`"
            raise ValueError(f"the schema in {source} cannot be read as JSON: {error}") from error
        if not isinstance(schema, dict | bool):
            raise ValueError("no JSON Schema: a schema is an object")
        checker = validator_for(schema, default=Draft202012Validator)
        try:
            checker.check_schema(schema)
        except SchemaError as error:
            where = "".join(f"[{part!r}]" for part in error.absolute_path)
            raise ValueError(f"no JSON Schema: {error.message}{f', at {where}' if where else ''}") from error
        # An empty registry fetches nothing: a reference to elsewhere is a fault of its own.
        return checker(schema, registry=Registry())
