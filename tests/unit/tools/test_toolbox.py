"""Toolbox: every call gets a result, and an interrupted run leaves nothing behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

import gevent
import orjson
import pytest
from support.interruption import interrupt_once
from support.polling import until

from service.core.concurrency import Cancelled, CancelScope, Deadline, deadline, run_concurrently, sleep, spawn
from service.core.messages import ApprovalDecision, Role, ToolApproval, ToolCall
from service.tools.approval import MAX_ARGUMENT_CHARACTERS, ApprovalRequest, Verdict
from service.tools.compiled_tool import CompiledTool
from service.tools.policy import ApprovalPolicy
from service.tools.tool import ToolContext, ToolError
from service.tools.toolbox import (
    MAX_CONCURRENT_CALLS,
    CallEnded,
    CallEvent,
    CallStarted,
    Toolbox,
    cut_text,
)

CONTEXT = ToolContext("main", None, "agent:main:x", "run-1")
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "count": {"type": "integer", "minimum": 1},
        "steps": {"items": {"properties": {"to": {}}, "additionalProperties": False}},
    },
    "required": ["path"],
    "additionalProperties": False,
}
ANYTHING: Mapping[str, Any] = {"type": "object"}


@dataclass
class StubTool:
    """A tool whose work is a function of its arguments."""

    name: str
    work: Callable[[Mapping[str, Any]], str]
    parameters: Mapping[str, Any] = field(default_factory=lambda: ANYTHING)
    description: str = "A tool for tests."
    timeout_seconds: float = 30.0
    parallel: bool = True

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        assert context == CONTEXT
        return self.work(arguments)


def call(name: str, arguments: str = "{}", call_id: str = "c1") -> ToolCall:
    return ToolCall(call_id, name, arguments)


def answer(tool: StubTool, arguments: str = "{}", name: str | None = None) -> tuple[str, bool]:
    """What the model is told, and whether it is told as a failure."""
    events: list[CallEvent] = []
    made = call(name or tool.name, arguments)
    [message] = Toolbox([tool]).execute([made], CONTEXT, events.append)
    started, ended = events
    assert started == CallStarted(made)
    assert isinstance(ended, CallEnded)
    assert (message.role, message.tool_call_id, message.text) == (Role.TOOL, "c1", ended.text)
    return ended.text, ended.failed


def raising(error: BaseException) -> Callable[[Mapping[str, Any]], str]:
    def work(_arguments: Mapping[str, Any]) -> str:
        raise error

    return work


def test_model_is_reported_of_exactly_tools_there_are() -> None:
    toolbox = Toolbox([StubTool("a", str, SCHEMA), StubTool("b", str)])
    assert [(one.name, one.description, one.parameters) for one in toolbox.functions()] == [
        ("a", "A tool for tests.", SCHEMA),
        ("b", "A tool for tests.", ANYTHING),
    ]
    assert "a" in toolbox
    assert "c" not in toolbox


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="Duplicate tool name a"):
        Toolbox([StubTool("a", str), StubTool("a", str)])


@pytest.mark.parametrize("parameters", [{"type": "objekt"}, {"$ref": "http://127.0.0.1:9/schema"}, {"maximum": 2**70}])
def test_tool_whose_schema_cannot_be_used_is_left_out_with_warning(
    parameters: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    toolbox = Toolbox([StubTool("bad", str, parameters), StubTool("good", str)])
    assert [one.name for one in toolbox.functions()] == ["good"]
    assert "The tool bad is omitted" in caplog.text


def test_tool_that_is_left_out_again_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reported: set[str] = set()
    for name in ("bad", "bad", "worse"):
        Toolbox([StubTool(name, str, {"type": "objekt"})], reported=reported)
    assert [record.args for record in caplog.records] == [("bad",), ("worse",)]


def test_result_is_reported_as_it_is() -> None:
    assert answer(StubTool("a", lambda given: f"got {given}", SCHEMA), '{"path": "x"}') == ("got {'path': 'x'}", False)


def test_result_carries_how_long_the_tool_took() -> None:
    def work(_arguments: Mapping[str, Any]) -> str:
        sleep(0.05)
        return "done"

    [message] = Toolbox([StubTool("slow", work)]).execute([call("slow")], CONTEXT)
    assert message.duration_ms is not None
    assert 50 <= message.duration_ms < 30_000


def test_empty_result_says_so() -> None:
    assert answer(StubTool("a", lambda _: "")) == ("(no output)", False)


def test_missing_arguments_are_no_arguments() -> None:
    assert answer(StubTool("a", repr), "") == ("{}", False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"path": ', "not valid JSON"),
        ('{"path": NaN}', "not valid JSON"),
        ("[1]", "must be one JSON object"),
        ("{}", '"path" is a required property'),
        ('{"path": 7}', 'path: 7 is not of type "string"'),
        ('{"path": "x", "count": 0}', "count: 0 is less than the minimum of 1"),
        ('{"path": "x", "pth": 1}', "('pth' was unexpected); allowed: path, count, steps"),
        (
            '{"path": "x", "steps": [{"too": 1}]}',
            "steps.0: Additional properties are not allowed ('too' was unexpected",
        ),
        ('{"path": "x", "steps": [{"too": 1}]}', "; allowed: to."),
    ],
)
def test_wrong_arguments_are_explained_and_tool_does_not_run(arguments: str, told: str) -> None:
    text, failed = answer(StubTool("a", raising(AssertionError("it ran")), SCHEMA), arguments)
    assert told in text
    assert failed


def test_long_fault_is_reported_shortly() -> None:
    text, _ = answer(StubTool("a", str, SCHEMA), '{"path": ["' + "x" * 100_000 + '"]}')
    assert len(text) < 1_000


def test_pattern_that_explodes_does_not_hold_anybody_up() -> None:
    schema = {"type": "object", "properties": {"a": {"pattern": "^(?=a)(a+)+$"}}}
    text, failed = answer(StubTool("a", str, schema), '{"a": "' + "a" * 60 + 'b"}')
    assert failed
    assert "does not match" in text


def test_schema_that_explodes_does_not_hold_anybody_up() -> None:
    steps = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(18)}
    schema = {"type": "object", "$defs": {**steps, "d18": False}, "$ref": "#/$defs/d0"}
    before = thread_time()
    assert answer(StubTool("a", lambda _: "the tool decides", schema)) == ("the tool decides", False)
    assert thread_time() - before < 1.0


def test_unknown_tool_is_reported_with_those_there_are() -> None:
    assert answer(StubTool("read", str), name="raed") == ('Unknown tool "raed". Available tools: read.', True)


def test_unknown_name_among_many_tools_reports_nearest_names() -> None:
    tools = [*(StubTool(f"other_{number}", str) for number in range(200)), StubTool("read", str)]
    [message] = Toolbox(tools).execute([call("raed", "{}")], CONTEXT)
    told = message.text
    assert told.startswith('Unknown tool "raed". The closest of 201 available tools: read, ')
    assert told.count(",") <= 31


def test_tool_error_is_reported_in_its_own_words() -> None:
    assert answer(StubTool("a", raising(ToolError("Use another path.")))) == ("Use another path.", True)


def test_defect_is_logged_and_reported_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    text, failed = answer(StubTool("a", raising(KeyError("inner detail"))))
    assert text == "The tool a failed. This is an error in the tool, not in the call."
    assert failed
    assert "run-1" in caplog.text
    assert "KeyError" in caplog.text


def test_call_that_takes_too_long_is_ended() -> None:
    ended: list[bool] = []

    def work(_arguments: Mapping[str, Any]) -> str:
        try:
            sleep(60)
        finally:
            ended.append(True)
        return "late"

    text, failed = answer(StubTool("a", work, timeout_seconds=0.05))
    assert (text, failed, ended) == ("a timed out after 0.05 seconds. Request less at once.", True, [True])


def test_long_result_keeps_both_ends_and_says_what_is_missing() -> None:
    toolbox = Toolbox([StubTool("a", lambda _: "<" + "x" * 10_000 + ">")], max_result_characters=300)
    [message] = toolbox.execute([call("a")], CONTEXT)
    assert message.text.startswith("<xxx")
    assert message.text.endswith("xxx>")
    assert "[... 9702 of 10002 characters omitted ...]" in message.text
    assert len(message.text) < 400


def test_text_within_limit_is_not_cut() -> None:
    assert cut_text("abc", 3) == "abc"


def test_result_that_is_not_unicode_becomes_so() -> None:
    assert answer(StubTool("a", lambda _: "a\udc80b")) == ("a\ufffdb", False)


def overlapping(toolbox: Toolbox, calls: list[ToolCall], running: dict[str, int]) -> list[str]:
    with deadline(20):
        messages = toolbox.execute(calls, CONTEXT)
    assert running["now"] == 0
    return [message.tool_call_id or "" for message in messages]


def counting(running: dict[str, int]) -> Callable[[Mapping[str, Any]], str]:
    def work(arguments: Mapping[str, Any]) -> str:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        sleep(arguments.get("seconds", 0.01))
        running["now"] -= 1
        return "done"

    return work


def test_parallel_tools_run_side_by_side_and_answer_in_order_of_calls() -> None:
    running = {"now": 0, "most": 0}
    toolbox = Toolbox([StubTool("a", counting(running)), StubTool("b", counting(running))])
    calls = [call("a", '{"seconds": 0.2}', "1"), call("b", '{"seconds": 0}', "2"), call("gone", "{}", "3")]
    assert overlapping(toolbox, calls, running) == ["1", "2", "3"]
    assert running["most"] == 2


def test_no_more_than_few_run_at_same_time() -> None:
    running = {"now": 0, "most": 0}
    calls = [call("a", "{}", str(number)) for number in range(30)]
    assert overlapping(Toolbox([StubTool("a", counting(running))]), calls, running) == list(map(str, range(30)))
    assert running["most"] == MAX_CONCURRENT_CALLS


def test_one_tool_that_is_not_parallel_makes_all_run_one_by_one() -> None:
    running = {"now": 0, "most": 0}
    toolbox = Toolbox([StubTool("a", counting(running)), StubTool("b", counting(running), parallel=False)])
    calls = [call("a", "{}", "1"), call("b", "{}", "2"), call("a", "{}", "3")]
    assert overlapping(toolbox, calls, running) == ["1", "2", "3"]
    assert running["most"] == 1


def interrupted_work(log: list[str]) -> Callable[[Mapping[str, Any]], str]:
    def work(arguments: Mapping[str, Any]) -> str:
        log.append("began")
        try:
            sleep(60)
        except Cancelled:
            sleep(arguments.get("cleanup_seconds", 0))
            log.append("let go")
            raise
        return "late"

    return work


@pytest.mark.parametrize("parallel", [True, False])
def test_cancelling_ends_running_calls_and_begins_no_other(*, parallel: bool) -> None:
    log: list[str] = []
    events: list[CallEvent] = []
    toolbox = Toolbox([StubTool("a", interrupted_work(log), parallel=parallel)])
    scope, seen = CancelScope(), []

    def run() -> None:
        try:
            with scope:
                toolbox.execute([call("a", "{}", str(number)) for number in range(20)], CONTEXT, events.append)
        except Cancelled:
            seen.append("cancelled")

    runner = spawn(run)
    running = MAX_CONCURRENT_CALLS if parallel else 1
    until(lambda: log == ["began"] * running)
    scope.cancel()
    runner.get()
    assert seen == ["cancelled"]
    assert log == ["began"] * running + ["let go"] * running
    assert all(isinstance(event, CallStarted) for event in events)


def test_deadline_of_run_ends_calls_too() -> None:
    log: list[str] = []
    toolbox = Toolbox([StubTool("a", interrupted_work(log))])
    interrupt_once(lambda: len(log) == 2, lambda: toolbox.execute([call("a"), call("a")], CONTEXT))
    assert log == ["began", "began", "let go", "let go"]


def test_tool_that_does_not_let_go_holds_run_for_second_at_most() -> None:
    log: list[str] = []
    toolbox = Toolbox([StubTool("a", interrupted_work(log))])
    interrupt_once(lambda: log, lambda: toolbox.execute([call("a", '{"cleanup_seconds": 30}')], CONTEXT))
    assert log == ["began"]


def test_nothing_is_printed_when_calls_are_ended(capfd: pytest.CaptureFixture[str]) -> None:
    toolbox = Toolbox([StubTool("a", interrupted_work([]))])
    with pytest.raises(Deadline), deadline(0.05):
        toolbox.execute([call("a")], CONTEXT)
    gevent.sleep(0)
    assert capfd.readouterr() == ("", "")


def test_no_calls_have_no_results() -> None:
    assert Toolbox([]).execute([], CONTEXT) == []


def test_texts_of_calls_do_not_reach_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer(StubTool("a", lambda _: "secret result", SCHEMA), '{"path": "secret path"}')
    answer(StubTool("a", str, SCHEMA), '{"path": ["secret path"]}')
    assert "secret" not in caplog.text


def test_jobs_side_by_side_all_end_before_first_error_is_raised() -> None:
    ended: list[int] = []

    def job(number: int) -> int:
        sleep(0.01 * number)
        ended.append(number)
        if number == 1:
            raise ValueError("the second")
        return number

    with pytest.raises(ValueError, match="the second"):
        run_concurrently([lambda: job(0), lambda: job(1), lambda: job(2)], at_most=3)
    assert ended == [0, 1, 2]
    assert run_concurrently([lambda: job(0), lambda: job(2)], at_most=1) == [0, 2]


def test_calls_wait_for_verdicts_and_refused_ones_are_not_made() -> None:
    made: list[str] = []
    approval = ToolApproval("1", ApprovalDecision.ALLOW_ONCE, "ann", 1_000)

    def gate(requests: Sequence[ApprovalRequest]) -> Sequence[Verdict]:
        assert made == []
        return [Verdict(None, approval) if one.call_id == "c2" else Verdict("Not now.") for one in requests]

    def note(arguments: Mapping[str, Any]) -> str:
        made.append(arguments["path"])
        return "done"

    toolbox = Toolbox([StubTool("a", note), StubTool("b", note)], approvals={"a": ApprovalPolicy.ASK})
    calls = [call("a", '{"path": "1"}', "c1"), call("a", '{"path": "2"}', "c2"), call("b", '{"path": "3"}', "c3")]
    events: list[CallEvent] = []
    results = toolbox.execute(calls, CONTEXT, events.append, gate=gate)
    assert sorted(made) == ["2", "3"]
    assert [message.text for message in results] == ["Not now.", "done", "done"]
    assert [message.approval for message in results] == [None, approval, None]
    assert [event.failed for event in events if isinstance(event, CallEnded) and event.call.id == "c1"] == [True]


def test_without_gate_calls_that_need_approval_are_refused() -> None:
    toolbox = Toolbox([StubTool("a", lambda _: "made")], approvals={"a": ApprovalPolicy.ASK_ALWAYS})
    [message] = toolbox.execute([call("a")], CONTEXT)
    assert "needs an approval" in message.text


def test_approvals_are_needed_also_where_functions_of_caller_replace_tools() -> None:
    tools = [StubTool("a", lambda _: "made"), StubTool("b", lambda _: "made")]
    toolbox = Toolbox(tools, approvals={"a": ApprovalPolicy.ASK}).without(["b"])
    [message] = toolbox.execute([call("a")], CONTEXT)
    assert "needs an approval" in message.text


@pytest.mark.parametrize(
    ("name", "approval", "same", "other"),
    [
        ("exec", ApprovalPolicy.ASK, False, False),
        ("write", ApprovalPolicy.ASK, True, False),
        ("write", ApprovalPolicy.ASK_ALWAYS, True, True),
    ],
)
def test_subject_of_request(name: str, approval: ApprovalPolicy, same: bool, other: bool) -> None:
    one, again, different = (
        ApprovalRequest.of(call(name), arguments, approval).subject
        for arguments in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
    )
    assert one == again
    assert (one == different) == same
    assert (one is None) == other


LONG, DEEP = '{"a": "' + "x" * MAX_ARGUMENT_CHARACTERS + '"}', '{"a": ' + "[" * 500 + "]" * 500 + "}"


@pytest.mark.parametrize("text", [LONG, DEEP], ids=["long", "deep"])
def test_arguments_that_nobody_can_read_are_refused(text: str) -> None:
    toolbox = Toolbox([StubTool("a", lambda _: "made")], approvals={"a": ApprovalPolicy.ASK})
    [message] = toolbox.execute([call("a", text)], CONTEXT, gate=lambda _: [Verdict(None)])
    assert "approved" in message.text


def test_errors_of_many_arguments_are_not_explained() -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    texts = {"type": "array", "items": {"type": "string"}}
    tool = StubTool("add", lambda _: "", {"type": "object", "properties": {"all": {"anyOf": [numbers, texts]}}})
    compiled = CompiledTool(tool)
    assert compiled.parse_arguments(orjson.dumps({"all": [1] * 100_000}).decode())
    with pytest.raises(ToolError, match="with at most 2000 values the error would be named"):
        compiled.parse_arguments(orjson.dumps({"all": [1.5] * 100_000}).decode())
    with pytest.raises(ToolError, match="invalid: all: "):
        compiled.parse_arguments(orjson.dumps({"all": [1.5] * 1000}).decode())
