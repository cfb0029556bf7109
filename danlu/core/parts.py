"""Parts: a part is its own settings, a folder is the list of parts, the file name is the part's name.

`objectives/sft.py` is chosen by `objective: {name: sft, label_smoothing: 0.1}`. A part that lives outside danlu is
chosen by `name: my_package.my_file:MyPart`, which only a recipe with `allow_code: true` may do.
"""

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import NoneType
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError, core_schema

from danlu.core.optional import install_command

P = TypeVar("P", bound="Part")


def did_you_mean(word: str, known: Iterator[str] | list[str]) -> str:
    """`; did you mean 'dpo'?`, or nothing when no known word is near."""
    return "".join(f"; did you mean {close!r}?" for close in get_close_matches(word, list(known), n=1))


class Config(BaseModel):
    """Typed, frozen, no unknown keys. The string under a field is its help text everywhere."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        """Unknown keys are errors at their own dotted place, with the nearest known key."""
        if not isinstance(given, dict):
            return given
        unknown = [key for key in given if key not in cls.model_fields]
        if unknown:
            errors: list[InitErrorDetails] = [
                {
                    "type": PydanticCustomError(
                        "unknown_key",
                        "unknown key{hint}",
                        {
                            "hint": did_you_mean(str(key), list(cls.model_fields))
                            or f" (known: {', '.join(cls.model_fields)})"
                        },
                    ),
                    "loc": (str(key),),
                    "input": given[key],
                }
                for key in unknown
            ]
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return {key: cls._with_name(key, value) for key, value in given.items()}

    @classmethod
    def _with_name(cls, key: str, value: Any) -> Any:
        """`engine.optimizer.lr=1e-4` is about the default optimiser where the recipe names none."""
        field = cls.model_fields[key]
        if not (isinstance(field.default, Part) and isinstance(value, dict) and "name" not in value):
            return value
        [folder] = [one for one in field.metadata if isinstance(one, Folder)]
        return {"name": folder.name_of(field.default), **value}


class Part(Config):
    """A config with behaviour. It keeps no state: models, tensors and files are passed to its methods."""


class Folder(Generic[P]):
    """The parts of one kind in one package, imported only when asked for.

    `objective: Annotated[Objective, objectives]` makes a config field that is read and written by name;
    `template: Annotated[Template | None, templates]` one that may also be none.
    """

    def __init__(self, package: str, kind: type[P]) -> None:
        self.package, self.kind = package, kind

    def __iter__(self) -> Iterator[str]:
        names = (module.name for module in iter_modules(import_module(self.package).__path__))
        return iter(sorted(name for name in names if name != "base" and not name.startswith("_")))

    def __getitem__(self, name: str) -> type[P]:
        module, _, wanted = name.partition(":")
        if not wanted:
            if name not in self:
                hint = did_you_mean(name, list(self)) or f" (known: {', '.join(self)})"
                raise ValueError(f"{self.package} has no {name!r}{hint}")
            module = f"{self.package}.{name}"
        here = [
            thing
            for thing in vars(import_module(module)).values()
            if isinstance(thing, type) and issubclass(thing, self.kind) and thing.__module__ == module
        ]
        found = [part for part in here if wanted in ("", part.__name__)]
        if len(found) != 1:
            raise ValueError(f"{name} should be one {self.kind.__name__}, found {[part.__name__ for part in found]}")
        return found[0]

    def name_of(self, part: Part) -> str:
        """The name that `self[name]` would take to find this part again."""
        module = type(part).__module__
        inside = module.startswith(self.package + ".")
        return module.rpartition(".")[2] if inside else f"{module}:{type(part).__name__}"

    def _read(self, value: Any, info: ValidationInfo) -> P:
        if isinstance(value, self.kind):
            return value
        settings = {"name": value} if isinstance(value, str) else value
        if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
            raise ValueError(f"needs a name, one of: {', '.join(self)}")
        settings = dict(settings)
        name = settings.pop("name")
        outside = ":" in name and not name.startswith(self.package + ".")
        if outside and not (info.context or {}).get("allow_code"):
            raise ValueError(
                f"{name!r} is code from outside danlu; it runs only when the recipe says `allow_code: true`"
            )
        if outside and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # a file beside the recipe, which the danlu command would not find
        try:
            part = self[name]
        except ModuleNotFoundError as missing:
            if outside:
                raise ValueError(f"{name!r}: no module {missing.name!r} in {Path.cwd()} or installed") from missing
            raise ValueError(
                f"{name!r} needs the package {missing.name!r}: {install_command(missing.name)}"
            ) from missing
        return part.model_validate(settings, context=info.context)

    def _write(self, part: P) -> dict[str, Any]:
        return {"name": self.name_of(part), **part.model_dump(mode="json")}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        part = core_schema.with_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(self._write)
        )
        return core_schema.nullable_schema(part) if NoneType in get_args(source) else part

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        none = [{"type": "null"}] if schema["type"] == "nullable" else []
        return {"oneOf": [*none, *(self._form(name, handler) for name in self)]}

    def _form(self, name: str, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """One part's JSON schema; a part whose extra is not installed is shown with what it needs."""
        form: dict[str, Any]
        try:
            form = handler.resolve_ref_schema(handler(self[name].__pydantic_core_schema__))
        except ModuleNotFoundError as missing:
            form = {"description": f"needs {missing.name}: {install_command(missing.name)}"}
        return form | {
            "properties": {"name": {"const": name}} | form.get("properties", {}),
            "required": ["name", *form.get("required", [])],
        }
