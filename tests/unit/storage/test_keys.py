"""Session keys: header parsing, derivation, and round trips."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.core.errors import GatewayError
from service.gateway.session_selection import choose_session
from service.storage.sessions.keys import (
    MAX_HEADER_CHARACTERS,
    SESSION_KEY_HEADER,
    SessionKey,
    encode_session_key,
    owner_of,
    parse_session_key_header,
    resolve_stored_key,
    session_key_for,
)

NAMES = ("Nguyễn Thị Minh Khai", "Đặng Trần Đức", "İstanbul", "ΟΔΟΣ", "Σ", "100% sure", "a b", "日本", "~!@#$&'()*+,;=")

keys = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60).map(
    lambda text: text.strip(" ") or "-"
)


def derive(header_key: str | None = None, user: str | None = None, agent_id: str = "main") -> SessionKey:
    return choose_session(agent_id, header_key, user, lambda: "6ba7b810")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("my-app:1", "my-app:1"),
        ("  my app \t", "my app"),
        ("100%25", "100%"),
        ("%2520", "%20"),
        ("Nguy%E1%BB%85n", "Nguyễn"),
        ("nguy%e1%bb%85n", "nguyễn"),
        ("%20a%20", "a"),
        ("a+b", "a+b"),
        ("x" * MAX_HEADER_CHARACTERS, "x" * MAX_HEADER_CHARACTERS),
    ],
)
def test_header_is_decoded_and_trimmed(value: str, key: str) -> None:
    assert parse_session_key_header(value) == key


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "has 0 characters"),
        ("   ", "has 0 characters"),
        ("%20%20", "blank"),
        ("x" * (MAX_HEADER_CHARACTERS + 1), "has 2049 characters"),
        ("Nguyễn", "outside printable ASCII"),
        ("caf\xe9", "outside printable ASCII"),
        ("a\tb", "outside printable ASCII"),
        ("a\x00b", "outside printable ASCII"),
        ("100%", "two hexadecimal digits"),
        ("%zz", "two hexadecimal digits"),
        ("%4", "two hexadecimal digits"),
        ("%+1", "two hexadecimal digits"),
        ("%FF", "not UTF-8"),
        ("%C0%AF", "not UTF-8"),
        ("%ED%A0%80", "not UTF-8"),
        ("a%0Ab", "control character"),
        ("%0Aab", "control character"),
        ("a%00", "control character"),
        ("a%7F", "control character"),
        ("a%C2%85", "control character"),
    ],
)
def test_malformed_header_is_refused_with_remedy(value: str, problem: str) -> None:
    with pytest.raises(GatewayError, match=problem) as caught:
        parse_session_key_header(value)
    assert caught.value.code == "invalid_value"
    assert caught.value.param == SESSION_KEY_HEADER
    assert "percent-encode everything else" in caught.value.message


@given(st.text(max_size=40) | st.text("%0aCE2 x", max_size=12))
def test_any_header_is_valid_key_or_refused(value: str) -> None:
    try:
        key = parse_session_key_header(value)
    except GatewayError:
        return
    assert key == key.strip(" ") != ""
    assert parse_session_key_header(encode_session_key(key)) == key


@given(keys)
@example("Nguyễn Thị Minh Khai")
@example("100%")
def test_encoded_key_is_printable_ascii_and_round_trips(key: str) -> None:
    encoded = encode_session_key(key)
    assume(1 <= len(encoded) <= MAX_HEADER_CHARACTERS)
    assert all("!" <= character <= "~" for character in encoded)
    assert parse_session_key_header(encoded) == key


def test_only_percent_and_space_of_printable_ascii_are_encoded() -> None:
    readable = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
    assert encode_session_key(readable) == readable
    assert encode_session_key("a b%") == "a%20b%25"


def test_session_without_header_and_user_is_fresh() -> None:
    assert derive() == SessionKey("agent:main:openai:6ba7b810", fresh=True)


@pytest.mark.parametrize("user", ["", " ", "\t\n"])
def test_blank_user_counts_as_absent(user: str) -> None:
    assert derive(user=user).fresh


def test_user_has_one_session_with_agent() -> None:
    assert derive(user="  alice@example.com ") == SessionKey("agent:main:openai-user:alice@example.com", fresh=False)
    assert derive(user="alice") != derive(user="alice", agent_id="other")


def test_user_with_control_characters_is_refused() -> None:
    with pytest.raises(GatewayError, match="control characters") as caught:
        derive(user="a\x00b")
    assert (caught.value.code, caught.value.param) == ("invalid_value", "user")


@pytest.mark.parametrize(
    ("header_key", "key"),
    [
        ("my-app:1", "agent:main:my-app:1"),
        ("My-App:ONE", "agent:main:my-app:one~d00535d7d1bead35"),
        ("agent:main:my-app:1", "agent:main:my-app:1"),
        ("AGENT:Main:my-app", "agent:main:my-app"),
        ("agent:other:x", "agent:main:agent:other:x"),
        ("agent:mainly:x", "agent:main:agent:mainly:x"),
        ("agent:main:", "agent:main:agent:main:"),
        ("openai-user:alice", "agent:main:openai-user:alice"),
        ("subagents", "agent:main:subagents"),
        ("my:cron:1", "agent:main:my:cron:1"),
    ],
)
def test_header_takes_precedence_over_user(header_key: str, key: str) -> None:
    assert derive(header_key, "alice") == SessionKey(key, fresh=False)


@pytest.mark.parametrize("header_key", ["agent:other:x", "AGENT:Other:x"])
def test_key_of_another_agent_is_refused(header_key: str) -> None:
    with pytest.raises(
        GatewayError, match="belongs to the agent other, but the request is to the agent main"
    ) as caught:
        choose_session("main", header_key, None, str, {"main", "other"})
    assert (caught.value.code, caught.value.param) == ("invalid_value", SESSION_KEY_HEADER)
    assert choose_session("other", header_key, None, str, {"main", "other"}).key == "agent:other:x"
    assert choose_session("main", "agent:other", None, str, {"main", "other"}).key == "agent:main:agent:other"


@pytest.mark.parametrize("prefix", ["", "agent:main:", "agent:other:", "AGENT:x:"])
@pytest.mark.parametrize("reserved", ["subagent:1", "cron:", "acp:x", "Cron:nightly", "SUBAGENT:1"])
def test_reserved_namespaces_are_refused(prefix: str, reserved: str) -> None:
    with pytest.raises(GatewayError, match="reserved") as caught:
        derive(prefix + reserved)
    assert (caught.value.code, caught.value.status, caught.value.param) == ("invalid_value", 400, SESSION_KEY_HEADER)


@given(keys | st.sampled_from(NAMES), st.sampled_from(["main", "Main", "support-2"]))
def test_derived_key_round_trips(name: str, agent_id: str) -> None:
    assume(name)
    for header_key, user in ((name, None), (None, name), (None, None)):
        try:
            first = derive(header_key, user, agent_id)
        except GatewayError:
            continue  # a reserved name
        encoded = encode_session_key(first.key)
        again = derive(parse_session_key_header(encoded), None, agent_id)
        assert again == SessionKey(first.key, fresh=False)


@pytest.mark.parametrize(
    ("longest", "character"),
    [("x" * 2037, "x"), ("agent:main:" + "x" * 2037, "x"), (" x" * 509 + "x", "x"), ("é" * 339, "é")],
)
def test_key_length_limit_allows_round_trip(longest: str, character: str) -> None:
    encoded = encode_session_key(derive(longest).key)
    assert MAX_HEADER_CHARACTERS - len(character.encode()) * 3 < len(encoded) <= MAX_HEADER_CHARACTERS
    assert encode_session_key(derive(parse_session_key_header(encoded)).key) == encoded
    with pytest.raises(GatewayError, match="Use a shorter key") as caught:
        derive(longest + character)
    assert (caught.value.code, caught.value.param) == ("invalid_value", SESSION_KEY_HEADER)


def test_longest_user_has_key_that_round_trips() -> None:
    for character in ("😀", "İ", "%"):
        encoded = encode_session_key(derive(user=character * 128, agent_id="a" * 64).key)
        assert derive(parse_session_key_header(encoded), agent_id="a" * 64).key


@given(keys | st.sampled_from(NAMES))
def test_name_with_and_without_prefix_is_one_session(name: str) -> None:
    assume(name and not name.lower().startswith(("agent:", "subagent:", "cron:", "acp:")))
    assert derive(f"agent:main:{name}") == derive(name)
    assert (derive(f"agent:main:{name.lower()}") == derive(name)) is (name == name.lower())


@pytest.mark.parametrize("name", ["Alice", "aLICE", "ALICE", "\u212aelvin", "Straße", "İstanbul"])
def test_names_that_differ_only_in_case_are_two_sessions(name: str) -> None:
    lower = name.lower()
    for first, second in ((derive(user=name), derive(user=lower)), (derive(name), derive(lower))):
        assert first.key.startswith(f"{second.key}~")
        assert derive(first.key).key == first.key


def test_user_called_like_the_key_of_another_has_another_session() -> None:
    key = derive(user="Alice").key
    name = key.removeprefix("agent:main:openai-user:")
    assert derive(user=name).key.startswith(f"{key}~")


OWNERS = (None, "key:aaaaaaaaaaaa", "key:bbbbbbbbbbbb")
owned_keys = st.sampled_from([f"agent:main:{owner}:x" for owner in OWNERS[1:]] + ["agent:main:x", "key:aaaaaaaaaaaa:x"])


@given(keys | owned_keys, st.sampled_from(OWNERS[1:]))
@example("AGENT:Main:KEY:BBBBBBBBBBBB:x", OWNERS[1])
@example("agent:main:key:aaaaaaaaaaaa:agent:main:x", OWNERS[1])
def test_whatever_a_key_sends_stays_in_its_namespace(sent: str, owner: str) -> None:
    try:
        key = session_key_for("main", sent, None, str, owner).key
    except GatewayError:
        return
    assert key.startswith(f"agent:main:{owner}:")
    assert owner_of(key) == owner
    assert session_key_for("main", key, None, str, owner).key == key
    assert resolve_stored_key(sent, "main", lambda _: True, owner) in (key, sent if owner_of(sent) == owner else key)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30))
@example("key:aaaaaaaaaaaa:x")
def test_users_of_two_owners_are_two(user: str) -> None:
    derived = [session_key_for("main", None, user, lambda: "new", owner).key for owner in OWNERS]
    assert [owner_of(key) for key in derived] == list(OWNERS)


@pytest.mark.parametrize("owner", OWNERS[1:])
def test_a_foreign_key_is_resolved_to_none_of_its_sessions(owner: str) -> None:
    foreign = "agent:main:key:cccccccccccc:x"
    resolved = resolve_stored_key(foreign, "main", lambda key: key == foreign, owner)
    assert resolved == f"agent:main:{owner}:key:cccccccccccc:x"
    assert resolve_stored_key("cron:x", "main", lambda _: True, owner) is None
