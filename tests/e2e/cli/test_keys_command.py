"""`openclaw keys`: create, list, show, rotate and revoke, without a gateway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.command import Home
from support.live import scripted_config

KEY = re.compile(r"ocgw_[0-9a-z]{12}_[0-9A-Za-z]{43}")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, {})


def test_a_key_is_shown_once_and_managed_by_its_name(home: Home) -> None:
    home.write(scripted_config())
    done = home.run(
        *("keys", "create", "anna", "--agent", "Beta", "--model", "scripted/*", "--scope", "read", "--scope", "chat"),
        *("--expires", "90d", "--json"),
    )
    made = done.json
    key = made.pop("key")
    assert KEY.fullmatch(key)
    assert key.split("_")[1] == made["id"]
    assert (made["name"], made["state"], made["scopes"]) == ("anna", "active", ["read", "chat"])
    assert (made["agents"], made["models"], made["last_used_at"]) == (["beta"], ["scripted/*"], None)
    shown = home.run("keys", "show", "anna", "--json").json
    assert home.run("keys", "list", "--json").json == {"keys": [shown]}
    assert shown.pop("usage")["runs"] == 0
    assert shown == made
    assert "read,chat" in home.run("keys", "list").out

    rotated = home.run("keys", "rotate", made["id"], "--grace", "5m")
    assert KEY.fullmatch(rotated.out.strip())
    assert rotated.out.split("_")[1] == made["id"]
    assert rotated.out.strip() != key
    assert home.run("keys", "show", "anna", "--json").json["replaced_until"] is not None

    limited = home.run("keys", "limit", "anna", "--rpm", "60", "--concurrent", "2", "--json").json
    assert (limited["rpm"], limited["tpm"], limited["concurrent"]) == (60, None, 2)
    assert "60 requests per minute, 9 tokens per minute." in home.run(
        *("keys", "limit", "anna", "--tpm", "9", "--concurrent", "none")
    ).out.replace("\n", " ")
    assert home.run("keys", "show", "anna", "--json").json["tpm"] == 9
    single = home.run("keys", "limit", "anna", "--rpm", "1", "--tpm", "1", "--concurrent", "1").out
    assert "1 request per minute, 1 token per minute, 1 run at once." in single.replace("\n", " ")
    assert home.run("keys", "limit", "anna", "--rpm", "60", "--tpm", "9", "--concurrent", "none").status == 0

    assert home.run("keys", "revoke", "anna", "--json").json["state"] == "revoked"
    assert "is revoked" in home.run("keys", "rotate", "anna").err
    second = home.run("keys", "create", "anna").out.strip()
    assert KEY.fullmatch(second)
    assert second.split("_")[1] != made["id"]
    stored = b"".join(path.read_bytes() for path in home.directory.rglob("*") if path.is_file())
    assert [one for one in (key, rotated.out.strip(), second) if one.rpartition("_")[2].encode() in stored] == []


def test_a_key_that_would_not_mean_what_it_says_is_refused(home: Home) -> None:
    home.write(scripted_config())
    assert home.run("keys", "create", "anna").status == 0
    for arguments, words in (
        (("create", "anna"), "already"),
        (("create", "a b"), "letters"),
        (("create", "ben", "--agent", "nobody"), "not an agent"),
        (("create", "ben", "--model", "gpt-5"), "provider/model"),
        (("create", "ben", "--scope", "admin", "--agent", "main"), "cannot be limited"),
        (("create", "ben", "--expires", "soon"), "not a time"),
        (("create", "ben", "--rpm", "0"), "at least 1"),
        (("limit", "anna", "--tpm", "many"), "not a limit"),
        (("limit", "ben", "--rpm", "1"), "no key"),
        (("create", "ben", "--scope", "everything"), "everything"),
        (("show", "ben"), "no key"),
        (("revoke", "ben"), "no key"),
    ):
        done = home.run("keys", *arguments)
        assert (done.status != 0, words in done.err) == (True, True), (arguments, done)
    assert [one["name"] for one in home.run("keys", "list", "--json").json["keys"]] == ["anna"]
