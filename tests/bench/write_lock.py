"""How much of the time somebody holds the write lock of a database.

`python tests/bench/write_lock.py DATABASE SECONDS` tries to take the lock at random times and prints the share of the
attempts that found it taken.
"""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

MEAN_PAUSE_SECONDS = 0.001


def start_sampling(database: Path, seconds: float) -> subprocess.Popen[str]:
    """Start this program; it prints one number."""
    command = [sys.executable, __file__, str(database), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def held_share(database: str, seconds: float) -> float:
    """Return the share of attempts in the next `seconds` that found the lock taken."""
    taken = attempts = 0
    end = time.monotonic() + seconds
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        while time.monotonic() < end:
            time.sleep(random.expovariate(1 / MEAN_PAUSE_SECONDS))
            attempts += 1
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                taken += 1
            else:
                connection.execute("ROLLBACK")
    return taken / attempts


if __name__ == "__main__":
    print(held_share(sys.argv[1], float(sys.argv[2])))
