"""Adapt the tools of a request to what a model accepts, as its error messages say."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import orjson

from service.core.dataclass import record
from service.core.messages import Function, Message, ToolChoiceMode
from service.models.provider import ModelEnded, ModelRequest
from service.models.request_styles import NOT_KNOWN
from service.models.tool_schemas import dispensable_keywords, inline_references, without_keywords

logger = logging.getLogger("openclaw.models")

_DIGEST_CHARS = 8
_SHORTEST_LIMIT = 16
_UNSTATED_LIMIT = 32
_MAX_REFUSED = 256

_TOO_LONG = re.compile(
    r"\bnames?\b.{0,300}?(at most|max(imum)?([ _-]?length)?|no more than|up to|exceed\w*|longer than|too long)"
    r"\D{0,24}(?P<limit>\d{2,3})?",
    re.IGNORECASE | re.DOTALL,
)
_REFUSES_REFERENCES = re.compile(r"\$ref|\$defs|\bdefinitions\b|references? (are|is) not", re.IGNORECASE)
_ABOUT_A_TOOL = re.compile(r"\b(tools?|functions?|function_?declarations?|input_schema)\b", re.IGNORECASE)
_REFUSES_EMPTY = re.compile(r"properties\W{1,4}(should|must) (be non-?empty|not be empty)", re.IGNORECASE)
_REFUSES_A_KEYWORD = re.compile(rf"{NOT_KNOWN.pattern}|\bonly\b.*\bsupported|cannot find field", re.IGNORECASE)
# "tools.0.custom.input_schema", "tools[0].function.parameters", Google: "tools[0].function_declarations[3].parameters"
_PLACE = re.compile(r"(?<!\w)(?:function_?declarations|functions|tools)\W{1,3}(\d+)\b", re.IGNORECASE)


@record
class ToolStyle:
    """The form of the tools in requests to one model.

    `inlines_references` resolves the `$ref`s of their schemas, which have none of `omitted_keywords`; with
    `omits_empty` a function without parameters has no schema. Longer names than `name_chars` are shortened, and tools
    whose digest is in `refused` are left out.
    """

    inlines_references: bool = False
    omitted_keywords: frozenset[str] = frozenset()
    omits_empty: bool = False
    name_chars: int | None = None
    refused: tuple[str, ...] = ()

    def adapted(self, request: ModelRequest, message: str) -> ToolStyle:
        """Return the style that an error `message` about `request`, as applied, asks for; the same for other errors."""
        if not request.functions or not _ABOUT_A_TOOL.search(message):
            return self
        has_references = any("$ref" in str(function.parameters) for function in request.functions)
        if not self.inlines_references and has_references and _REFUSES_REFERENCES.search(message):
            return replace(self, inlines_references=True)
        if (limit := _name_limit(request, message)) is not None:
            return replace(self, name_chars=limit)
        if not self.omits_empty and _REFUSES_EMPTY.search(message) and any(map(_is_empty, request.functions)):
            return replace(self, omits_empty=True)
        if keywords := _refused_keywords(request, message) - self.omitted_keywords:
            logger.warning(
                "the model %s refuses %s in schemas, which is left out", request.model, ", ".join(sorted(keywords))
            )
            return replace(self, omitted_keywords=self.omitted_keywords | keywords)
        sent = self._kept(request.functions)
        found = _named_in(message, self._shortened_all(sent))
        refused = [sent[index] for index in found if is_dispensable(sent[index], request, sent)]
        for function in refused:
            logger.warning("the model %s refuses the tool %s, which is left out", request.model, function.name)
        return replace(self, refused=(*self.refused, *map(_digest, refused))[-_MAX_REFUSED:]) if refused else self

    def apply(self, request: ModelRequest) -> ModelRequest:
        """Return `request` with its tools, and the calls of them, in this style."""
        if self is USUAL_TOOLS:
            return request
        functions = self._shortened_all(self._kept(request.functions))
        functions = tuple(self._with_plain_schema(function) for function in functions)
        if self.name_chars is None:
            return replace(request, functions=functions)
        choice = request.tool_choice
        return replace(
            request,
            functions=functions,
            messages=tuple(map(self._with_short_names, request.messages)),
            tool_choice=choice if choice.name is None else replace(choice, name=self._shortened(choice.name)),
        )

    def restore(self, request: ModelRequest, ended: ModelEnded) -> ModelEnded:
        """Return the end of an answer to `request`, before `apply`, with its calls under the original names."""
        if self.name_chars is None:
            return ended
        names = {self._shortened(function.name): function.name for function in request.functions}
        calls = tuple(replace(call, name=names.get(call.name, call.name)) for call in ended.tool_calls)
        return replace(ended, tool_calls=calls)

    def _with_plain_schema(self, function: Function) -> Function:
        parameters = function.parameters
        if self.omits_empty and _is_empty(function):
            parameters = None
        if parameters and self.inlines_references:
            parameters = inline_references(parameters)
        if parameters and self.omitted_keywords:
            parameters = without_keywords(parameters, self.omitted_keywords)
        return function if parameters is function.parameters else replace(function, parameters=parameters)

    def _kept(self, functions: Iterable[Function]) -> tuple[Function, ...]:
        if not self.refused:
            return tuple(functions)
        return tuple(function for function in functions if _digest(function) not in self.refused)

    def _shortened_all(self, functions: tuple[Function, ...]) -> tuple[Function, ...]:
        if self.name_chars is None:
            return functions
        return tuple(replace(function, name=self._shortened(function.name)) for function in functions)

    def _shortened(self, name: str) -> str:
        if self.name_chars is None or len(name) <= self.name_chars:
            return name
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:_DIGEST_CHARS]
        return f"{name[: self.name_chars - _DIGEST_CHARS - 1]}_{digest}"

    def _with_short_names(self, message: Message) -> Message:
        if not message.tool_calls:
            return message
        calls = tuple(replace(call, name=self._shortened(call.name)) for call in message.tool_calls)
        return replace(message, tool_calls=calls)


#: The style of models that have not refused anything.
USUAL_TOOLS = ToolStyle()


def is_dispensable(function: Function, request: ModelRequest, sent: tuple[Function, ...]) -> bool:
    """True if the request keeps its meaning without `function`: not the one it demands, nor the caller's only one."""
    if request.tool_choice.name == function.name:
        return False
    if request.tool_choice.mode is ToolChoiceMode.REQUIRED and len(sent) == 1:
        return False
    return not function.from_caller or any(one.from_caller and one is not function for one in sent)


def _name_limit(request: ModelRequest, message: str) -> int | None:
    """Return the limit of names that `message` states, if a name in `request` exceeds it."""
    found = _TOO_LONG.search(message)
    if found is None:
        return None
    limit = int(found["limit"] or _UNSTATED_LIMIT)
    longest = max(len(function.name) for function in request.functions)
    return limit if _SHORTEST_LIMIT <= limit < longest else None


def _named_in(message: str, functions: tuple[Function, ...]) -> list[int]:
    """Return the indexes of the functions that `message` is about, by their place or else by their names."""
    places = [int(place) for place in _PLACE.findall(message)]
    if places:
        return [places[-1]] if places[-1] < len(functions) else []
    return [index for index, function in enumerate(functions) if _mentions(message, function.name)]


def _mentions(message: str, name: str) -> bool:
    name = re.escape(name)
    return re.search(rf"['\"`]{name}['\"`]|\b(tool|function)\W{{1,3}}{name}(?![\w-])", message) is not None


def _is_empty(function: Function) -> bool:
    return not any((function.parameters or {}).get(name) for name in ("properties", "$ref", "anyOf", "oneOf", "allOf"))


def _refused_keywords(request: ModelRequest, message: str) -> frozenset[str]:
    """Return the dispensable keywords in the schemas of `request` that `message` refuses by name."""
    if not _REFUSES_A_KEYWORD.search(message):
        return frozenset()
    sent = frozenset[str]().union(*(dispensable_keywords(function.parameters or {}) for function in request.functions))
    return frozenset(name for name in sent if re.search(rf"""['"`.\]]{re.escape(name)}['"`:]""", message))


def _digest(function: Function) -> str:
    described = [function.name, function.description, function.parameters, function.strict]
    return hashlib.sha256(orjson.dumps(described, default=_to_plain)).hexdigest()


def _to_plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
