"""Parse, derive and encode session keys.

A key is `agent:<agent id>:<rest>`, lower-case throughout. Derivation is idempotent: a later request can send back the
key of a response. The data of a named API key has keys of its own, `agent:<agent id>:key:<id>:<rest>`, and that of a
user of a trusted proxy `agent:<agent id>:user:<digest>:<rest>`: whose a session, a run or an approval is follows from
its session key and from nothing else.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

from service.core.dataclass import record
from service.core.errors import GatewayError

SESSION_KEY_HEADER = "x-openclaw-session-key"

#: An agent's default session.
MAIN_SESSION = "main"

#: The longest header value, in characters as sent.
MAX_HEADER_CHARACTERS = 2048

#: The longest id of a chat; the session key that it becomes part of is limited, too.
MAX_CHAT_ID_CHARACTERS = 256

#: What programs send for a chat that has no id yet.
_NO_CHAT_IDS = ("new", "null", "none", "undefined")
_PLACEHOLDER = re.compile(r"\{\{.*\}\}")

_PRINTABLE_ASCII = re.compile(r"[ -~]*")
_BROKEN_TRIPLET = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RESERVED = re.compile(r"(?:agent:[^:]+:)?(subagent|cron|acp):")
_OWNER = re.compile(r"agent:[^:]+:(key:[0-9a-z]{12}|user:[0-9a-f]{20}):")
#: The end of a key that was derived from a name with capitals.
_SUFFIX = re.compile(r"~[0-9a-f]{16}$")
_ENCODED = re.compile(r"[!-$&-~]*")
_UNENCODED = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


@record
class SessionKey:
    """The session of a request. `fresh`: the key is newly generated."""

    key: str
    fresh: bool


def parse_session_key_header(value: str) -> str:
    """Decode the session key header and strip spaces.

    `value` is 1 to 2048 characters of printable ASCII; `%` and everything else are percent-encoded UTF-8. Raises
    `GatewayError` (`invalid_value`) for anything else, for control characters and for a blank key.
    """
    value = value.strip(" \t")
    if not 1 <= len(value) <= MAX_HEADER_CHARACTERS:
        raise _refused(f"has {len(value)} characters; 1 to {MAX_HEADER_CHARACTERS} are allowed")
    if not _PRINTABLE_ASCII.fullmatch(value):
        raise _refused("contains a character outside printable ASCII")
    if _BROKEN_TRIPLET.search(value):
        raise _refused("contains a % that is not followed by two hexadecimal digits")
    try:
        key = unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise _refused("is not UTF-8 after percent-decoding") from None
    if _has_control_character(key):
        raise _refused("contains a control character")
    key = key.strip(" ")
    if not key:
        raise _refused("is blank")
    return key


def parse_chat_id(header: str, value: str | None) -> str | None:
    """Return the id of a chat from a chat program's `header`; `None` if there is none.

    There is none in a placeholder that the program did not fill in, nor in the name of a chat without an id yet. Raises
    `GatewayError` (`invalid_value`) for more than `MAX_CHAT_ID_CHARACTERS` and for anything but printable ASCII.
    """
    chat_id = (value or "").strip(" \t")
    if not chat_id or chat_id.lower() in _NO_CHAT_IDS or _PLACEHOLDER.search(chat_id):
        return None
    if len(chat_id) > MAX_CHAT_ID_CHARACTERS or not _PRINTABLE_ASCII.fullmatch(chat_id):
        text = f"The header {header} must be 1 to {MAX_CHAT_ID_CHARACTERS} characters of printable ASCII."
        raise GatewayError("invalid_value", text, param=header)
    return chat_id


def owner_of(session_key: str) -> str | None:
    """Return the owner of a session (`Principal.owner`), `None` for one of the administrator."""
    if ":key:" not in session_key and ":user:" not in session_key:  # most are
        return None
    owned = _OWNER.match(session_key)
    return None if owned is None else owned[1]


def key_prefix(agent_id: str, owner: str | None) -> str:
    """Return what the session keys of `owner` with an agent begin with."""
    prefix = f"agent:{agent_id.lower()}:"
    return prefix if owner is None else f"{prefix}{owner}:"


def is_unnamed(session_key: str, agent_id: str) -> bool:
    """Return True for the session of a request that named none, or of one that continues such a request."""
    return session_key.startswith(f"{key_prefix(agent_id, owner_of(session_key))}openai:")


def own_run_id(run_id: str, owner: str | None) -> str:
    """Return the id of a run that `owner` calls `run_id`, so that the names of two owners never meet."""
    return run_id if owner is None else f"{owner}:{run_id}"


def shown_run_id(run_id: str, owner: str | None) -> str:
    """Return what `owner` calls the run `run_id`."""
    return run_id if owner is None else run_id.removeprefix(f"{owner}:")


def session_key_for(
    agent_id: str, header_key: str | None, user: str | None, new_id: Callable[[], str], owner: str | None = None
) -> SessionKey:
    """Derive the session of a request of `owner` to `agent_id`.

    `header_key`, as `parse_session_key_header` returned it, takes precedence: `my-app:1` becomes `agent:<id>:my-app:1`,
    and a key that starts with this agent's `agent:<id>:` is kept; those of an owner are always in its namespace.
    Otherwise a non-blank `user` has one session with the agent, and without one the session is fresh, named with
    `new_id()`. Raises `GatewayError` (`invalid_value`) for a key in a reserved namespace and for a user with control
    characters.
    """
    prefix = key_prefix(agent_id, owner)
    if header_key is not None:
        return SessionKey(prefix + _own_part(header_key, prefix, key_prefix(agent_id, None)), fresh=False)
    user = (user or "").strip()
    if user:
        if _has_control_character(user):
            raise GatewayError("invalid_value", "`user` must not contain control characters.", param="user")
        # A user's name may be the key of another whose name has capitals.
        name = _with_suffix(user) if _SUFFIX.search(user) else _fold_case(user)
        return SessionKey(f"{prefix}openai-user:{name}", fresh=False)
    return SessionKey(f"{prefix}openai:{new_id()}", fresh=True)


def default_session_key(session_key: str | None, session_id: str | None) -> str:
    """Return the key, without the agent prefix, for a caller's session key or session id.

    Surrounding spaces are ignored. A key takes precedence over an id; without both it is the agent's main session.
    """
    key, session_id = (session_key or "").strip(), (session_id or "").strip()
    return key or (f"explicit:{session_id}" if session_id else MAIN_SESSION)


def encode_session_key(key: str) -> str:
    """Encode `key` as a header value: `%`, the space and all but printable ASCII as percent-encoded UTF-8."""
    return key if _ENCODED.fullmatch(key) else quote(key, safe=_UNENCODED)


def resolve_stored_key(
    key: str, agent_id: str, exists: Callable[[str], object], owner: str | None = None
) -> str | None:
    """Resolve `key` to a stored session: the exact key if it exists, else the short key of `agent_id`.

    Returns `key` itself if neither exists; `None` for text that the database cannot store. With an `owner` it is always
    a key in its namespace, or `None`.
    """
    if "\0" in key or any("\ud800" <= character <= "\udfff" for character in key):
        return None
    if owner in (None, owner_of(key)) and exists(key):
        return key
    try:
        full = session_key_for(agent_id, key, None, str, owner).key
    except GatewayError:  # a reserved key
        return key if owner is None else None
    return full if owner is not None or (full != key and exists(full)) else key


def _own_part(header_key: str, *prefixes: str) -> str:
    reserved = _RESERVED.match(header_key.lower())
    if reserved:
        raise GatewayError(
            "invalid_value",
            f"Session keys that begin with `{reserved[1]}:` are reserved for the gateway. Choose another name.",
            param=SESSION_KEY_HEADER,
        )
    lowered = header_key.lower()
    prefix = next((one for one in prefixes if lowered.startswith(one) and len(header_key) > len(one)), "")
    # Without the prefix: the lower case of a Greek capital sigma depends on the character before it.
    return _fold_case(header_key[len(prefix) :])


def _fold_case(name: str) -> str:
    """`name` in lower case; names that only fold onto the same lower case stay apart by a suffix."""
    return name if name == name.lower() else _with_suffix(name)


def _with_suffix(name: str) -> str:
    return f"{name.lower()}~{hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def _has_control_character(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)


def _refused(problem: str) -> GatewayError:
    return GatewayError(
        "invalid_value",
        f"The header {SESSION_KEY_HEADER} {problem}. Use printable ASCII, and percent-encode everything else, "
        "including %, as UTF-8: `l%C3%A0 1` for `là 1`.",
        param=SESSION_KEY_HEADER,
    )
