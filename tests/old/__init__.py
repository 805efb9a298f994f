"""What earlier versions left: dumps of their databases, and a data directory, each with a bit of everything.

Two collections, four jobs (done, failed, waiting until 2999, waiting for that one), a webhook, and a schedule. `fc17265`
and `463ae3e` are the commits whose code made them; the collection in the dumps of PostgreSQL was added by hand.
"""

from __future__ import annotations

import tarfile
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

HERE = Path(__file__).parent
COMMITS = ("fc17265", "463ae3e")


def sqlite(commit: str, file: Path) -> None:
    with closing(connect(file)) as connection:
        connection.executescript((HERE / f"{commit}.sqlite.sql").read_text())


def postgresql(commit: str, url: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((HERE / f"{commit}.postgresql.sql").read_text())  # type: ignore[call-overload]


def data_dir(folder: Path) -> None:
    """Of fc17265."""
    with tarfile.open(HERE / "fc17265.tar.xz") as archive:
        archive.extractall(folder, filter="data")
