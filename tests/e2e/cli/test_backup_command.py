"""`openclaw backup` of a gateway that runs, and `openclaw restore`."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
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


def used_home(tmp_path: Path) -> tuple[Home, Path]:
    """A home and its database, which has a key."""
    home = Home(tmp_path, {})
    home.write(scripted_config())
    add_key(home, "first")
    return home, home.config_path.with_name("sessions.sqlite")


def add_key(home: Home, name: str) -> None:
    assert home.run("keys", "create", name).status == 0


def names_in(database: Path) -> list[str]:
    with sqlite3.connect(database) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM api_keys ORDER BY name")]


def test_every_replaced_database_is_kept(tmp_path: Path) -> None:
    home, database = used_home(tmp_path)
    copy = str(tmp_path / "copy.sqlite")
    assert home.run("backup", copy).status == 0
    kept = []
    for number in range(3):
        add_key(home, f"later{number}")
        kept.append(home.run("restore", copy, "--json").json["replaced"])
    assert [Path(path).name.removeprefix(database.name) for path in kept] == [
        ".replaced",
        ".replaced.2",
        ".replaced.3",
    ]
    assert [names_in(Path(path)) for path in kept] == [["first", f"later{number}"] for number in range(3)]
    assert names_in(database) == ["first"]


def use_without_closing(database: Path, name: str) -> None:
    """Give a key another name, and leave it in the `-wal`, as a killed gateway does."""
    program = "import os, sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1])\n"
    program += "connection.execute('PRAGMA journal_mode = WAL')\n"
    program += "connection.execute('UPDATE api_keys SET name = ?', sys.argv[2:])\nconnection.commit()\nos._exit(0)"
    subprocess.run([sys.executable, "-c", program, database, name], check=True)
    assert Path(f"{database}-wal").stat().st_size


def test_wal_of_a_deleted_database_is_not_applied_to_the_restored_one(tmp_path: Path) -> None:
    home, database = used_home(tmp_path)
    copy = str(tmp_path / "copy.sqlite")
    assert home.run("backup", copy).status == 0
    use_without_closing(database, "later")
    database.unlink()
    assert home.run("restore", copy, "--json").json["replaced"] is None
    assert names_in(database) == ["first"]
    assert Path(f"{database}.replaced-wal").stat().st_size


@pytest.mark.parametrize("bytes_left", [0, 100, 20_000])
def test_damaged_database_is_replaced_and_kept(tmp_path: Path, bytes_left: int) -> None:
    home, database = used_home(tmp_path)
    copy = str(tmp_path / "copy.sqlite")
    assert home.run("backup", copy).status == 0
    use_without_closing(database, "later")
    database.write_bytes(database.read_bytes()[:bytes_left][::-1])
    kept = Path(home.run("restore", copy, "--json").json["replaced"])
    assert names_in(database) == ["first"]
    assert kept.stat().st_size == bytes_left


def test_damaged_database_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    home, database = used_home(tmp_path)
    copy = str(tmp_path / "copy.sqlite")
    assert home.run("backup", copy).status == 0
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        assert connection.execute("SELECT name FROM api_keys").fetchall() == [("first",)]
        subprocess.run(["dd", "if=/dev/zero", f"of={database}", "bs=4096", "count=1", "conv=notrunc"], check=True)
        assert "is in use" in home.run("restore", copy).err


@pytest.mark.parametrize("name", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("link", [None, "symlink", "hardlink", "directory"])
def test_backup_never_replaces_the_database_it_copies(tmp_path: Path, name: str, link: str | None) -> None:
    home, database = used_home(tmp_path)
    own = Path(f"{database}{name}")
    target = own
    if link == "directory":
        (tmp_path / "other").symlink_to(own.parent)
        target = tmp_path / "other" / own.name
    elif link is not None:
        target = tmp_path / "linked"
        if link == "hardlink" and not own.exists():
            pytest.skip("there is nothing to link to")
        getattr(target, f"{link}_to")(own)
    before = database.stat()
    for options in ((), ("--force",)):
        done = home.run("backup", str(target), *options)
        assert (done.status, done.out) == (1, ""), done
    assert "belongs to the database itself" in done.err
    assert (database.stat().st_ino, names_in(database)) == (before.st_ino, ["first"])


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_dash_is_not_taken_for_a_file(tmp_path: Path, command: str) -> None:
    home, _ = used_home(tmp_path)
    done = home.run(command, "-")
    assert (done.status, done.out, "the database needs a file" in done.err) == (2, "", True)


def test_backup_replaces_regular_files_alone(tmp_path: Path) -> None:
    home, _ = used_home(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(elsewhere)
    os.mkfifo(pipe)
    for target in (link, pipe):
        assert "exists" in home.run("backup", str(target)).err
        assert "is not a regular file" in home.run("backup", str(target), "--force").err
    assert (link.is_symlink(), pipe.is_fifo(), elsewhere.exists()) == (True, True, False)
    elsewhere.write_text("old")
    assert home.run("backup", str(link), "--force").status == 1
    assert home.run("backup", str(elsewhere), "--force").status == 0
    for command in ("backup", "restore"):
        done = home.run(command, "")
        assert (done.status, "it is empty" in done.err) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("exists", [True, False])
def test_restored_database_belongs_to_the_user_of_the_gateway(tmp_path: Path, exists: bool) -> None:
    home, database = used_home(tmp_path)
    copy = str(tmp_path / "copy.sqlite")
    assert home.run("backup", copy).status == 0
    user = 12_345
    if exists:
        os.chown(database, user, user)
    else:
        database.unlink()
        os.chown(database.parent, user, user)
    assert home.run("restore", copy).status == 0
    status = database.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (user, user, 0o600)


def test_file_that_cannot_be_written_is_named_without_its_draft(tmp_path: Path) -> None:
    home = Home(tmp_path, {})
    home.write(scripted_config())
    assert home.run("keys", "create", "anna").status == 0
    target = tmp_path / "missing" / "copy.sqlite"
    assert home.run("backup", str(target)).err == f"Error: {target} cannot be written: No such file or directory\n"
