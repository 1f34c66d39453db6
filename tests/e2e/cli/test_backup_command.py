"""`openclaw backup` of a gateway that runs, and `openclaw restore`."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.chat import ask, text_of
from support.command import Home
from support.live import live_gateway, scripted_config


def keys_of(home: Home) -> set[str]:
    return {one["key"] for one in home.run("sessions", "list", "--json").json["sessions"]}


def test_backup_of_a_busy_gateway_is_whole_and_restores_it(tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with live_gateway(tmp_path / "live", scripted_config()) as running, running.client() as client:
        config_path = running.output_path.with_name("openclaw.json")
        env = {"OPENCLAW_STATE_DIR": str(running.state_dir), "OPENCLAW_CONFIG_PATH": str(config_path)}
        home = Home(tmp_path, env)

        def say(number: int) -> str:
            return text_of(ask(client, "hi", headers={"x-openclaw-session-key": f"before-{number}"}))

        with ThreadPoolExecutor(4) as pool:
            said = pool.map(say, range(40))
            done = home.run("backup", str(copy), "--json")
        assert set(said) == {"hi"}
        assert done.status == 0, done.out
        assert done.json["bytes"] == copy.stat().st_size
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert [path.name for path in copy.parent.glob(".copy*")] == []
        with sqlite3.connect(copy) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert "exists" in home.run("backup", str(copy)).err
        assert home.run("backup", str(copy), "--force").status == 0

        ask(client, "hi", headers={"x-openclaw-session-key": "after"})
        refused = home.run("restore", str(copy))
        assert (refused.status, "is in use" in refused.err) == (1, True)
        assert "agent:main:after" in keys_of(home)

    restored = home.run("restore", str(copy), "--json").json
    assert keys_of(home) == {f"agent:main:before-{number}" for number in range(40)}
    with sqlite3.connect(restored["replaced"]) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with live_gateway(tmp_path / "live", scripted_config()) as running, running.client() as client:
        assert text_of(ask(client, "again", headers={"x-openclaw-session-key": "before-1"})) == "again"


def test_only_whole_databases_of_this_program_are_restored(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    home.write(scripted_config())
    file = tmp_path / "file.sqlite"
    assert "does not exist" in home.run("restore", str(file)).err
    file.write_bytes(b"no database at all" * 100)
    assert "not a database" in home.run("restore", str(file)).err
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    assert "is not a database of OpenClaw Gateway" in home.run("restore", str(file)).err
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    assert "newer version" in home.run("restore", str(file)).err
    assert not (home.config_path.parent / "sessions.sqlite").exists()
    done = home.run("backup", str(file), "--force", OPENCLAW_STATE_URL="postgresql+psycopg://127.0.0.1/x")
    assert "pg_dump" in done.err
