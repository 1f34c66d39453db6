"""The items of a response's output, and their events: an item is added, written and done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.agent.event_log import SUMMARY_CHARACTERS
from service.core.dataclass import record
from service.core.messages import ToolCall

#: The name and the members of an event, and the units that its number counts.
ItemEvent = tuple[str, Mapping[str, Any], int]


@record
class ItemKind:
    """The form of the items of a type: `text` begins the names of the events of their text, `part` those of its part.

    `whole` is the member with the text in the last of these events, `holder` the item's member with the part. All items
    of the kind have `members`, all events of the text have `extra`, and events of the text and the part have `place`.
    """

    type: str
    prefix: str
    text: str
    whole: str
    part: str | None = None
    part_type: str | None = None
    holder: str | None = None
    place: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None
    members: Mapping[str, Any] | None = None


MESSAGE = ItemKind(
    type="message",
    prefix="msg",
    text="response.output_text",
    whole="text",
    part="response.content_part",
    part_type="output_text",
    holder="content",
    place={"content_index": 0},
    extra={"logprobs": []},
    members={"role": "assistant"},
)
REASONING_ITEM = ItemKind(
    type="reasoning",
    prefix="rs",
    text="response.reasoning_summary_text",
    whole="text",
    part="response.reasoning_summary_part",
    part_type="summary_text",
    holder="summary",
    place={"summary_index": 0},
)
CALL = ItemKind(type="function_call", prefix="fc", text="response.function_call_arguments", whole="arguments")

#: The name of the gateway among the servers whose tools a response shows.
SERVER_LABEL = "openclaw"

_PART_MEMBERS: dict[str, dict[str, Any]] = {"output_text": {"annotations": [], "logprobs": []}}


class OpenItem:
    """An item that is being written; `response` names the response in its id, `members` are those beside the text."""

    def __init__(self, kind: ItemKind, response: str, index: int, /, **members: Any) -> None:
        self.kind = kind
        self._id = f"{kind.prefix}_{response}_{index}"
        self._index = index
        self._members = members
        self._place = {"item_id": self._id, "output_index": index, **(kind.place or {})}
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    def begin(self) -> Iterator[ItemEvent]:
        """Yield the first events."""
        yield "response.output_item.added", self._in_output(self._to_item("in_progress", None)), 1
        if self.kind.part is not None:
            yield f"{self.kind.part}.added", {**self._place, "part": self._to_part("")}, 1

    def write(self, text: str) -> Iterator[ItemEvent]:
        """Add text, which may be empty."""
        if text:
            self._pieces.append(text)
            members = {**self._place, "delta": text, **(self.kind.extra or {})}
            yield f"{self.kind.text}.delta", members, len(text)

    def end(self, status: str) -> tuple[dict[str, Any], list[ItemEvent]]:
        """Return the item, and its last events."""
        text = self.text
        done = {**self._place, self.kind.whole: text, **(self.kind.extra or {})}
        if self.kind is CALL:
            done["name"] = self._members["name"]
        events: list[ItemEvent] = [(f"{self.kind.text}.done", done, 1)]
        if self.kind.part is not None:
            events.append((f"{self.kind.part}.done", {**self._place, "part": self._to_part(text)}, 1))
        item = self._to_item(status, text)
        return item, [*events, ("response.output_item.done", self._in_output(item), 1)]

    def _in_output(self, item: dict[str, Any]) -> dict[str, Any]:
        return _in_output(self._index, item)

    def _to_item(self, status: str, text: str | None) -> dict[str, Any]:
        item = {"type": self.kind.type, "id": self._id, **(self.kind.members or {}), **self._members}
        if self.kind is not REASONING_ITEM:
            item["status"] = status
        if self.kind.holder is None:
            return {**item, self.kind.whole: text or ""}
        return {**item, self.kind.holder: [] if text is None else [self._to_part(text)]}

    def _to_part(self, text: str) -> dict[str, Any]:
        kind = self.kind.part_type or ""
        return {"type": kind, "text": text, **_PART_MEMBERS.get(kind, {})}


class OpenOwnCall:
    """A call of one of the agent's own tools, as OpenAI shows the calls that its own servers make."""

    def __init__(self, call: ToolCall, response: str, index: int) -> None:
        self.index = index
        self._arguments = call.arguments
        self._item = {
            "type": "mcp_call",
            "id": f"mcp_{response}_{index}",
            "server_label": SERVER_LABEL,
            "name": call.name,
            "approval_request_id": None,
        }
        self._place = {"item_id": self._item["id"], "output_index": index}

    def begin(self) -> Iterator[ItemEvent]:
        """Yield the first events."""
        yield "response.output_item.added", _in_output(self.index, self._to_item("in_progress", "")), 1
        yield "response.mcp_call.in_progress", self._place, 1
        yield "response.mcp_call_arguments.done", {**self._place, "arguments": self._arguments}, 1

    def end(self, status: str, text: str | None) -> tuple[dict[str, Any], list[ItemEvent]]:
        """Return the item, and its last events; `text` is the result, or the error of a `failed` call."""
        item = self._to_item(status, self._arguments, None if text is None else text[:SUMMARY_CHARACTERS])
        kind = "response.mcp_call.completed" if status == "completed" else "response.mcp_call.failed"
        return item, [(kind, self._place, 1), ("response.output_item.done", _in_output(self.index, item), 1)]

    def _to_item(self, status: str, arguments: str, text: str | None = None) -> dict[str, Any]:
        error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}
        result = {"output": None, "error": error} if status == "failed" else {"output": text, "error": None}
        return {**self._item, "arguments": arguments, **result, "status": status}


def _in_output(index: int, item: dict[str, Any]) -> dict[str, Any]:
    return {"output_index": index, "item": item}
