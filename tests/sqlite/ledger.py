"""Applications of a SQLite database, and what can be said of a copy of it. The system's SQLite, in processes of their own.

usage: ledger.py make DATABASE PAGE_BYTES
       ledger.py write DATABASE WRITER SECONDS PER_SECOND KIND    KIND: steady, or mixed: schema changes, blobs, VACUUM, checkpoints
       ledger.py truncate DATABASE WRITER                         a few transactions, then a checkpoint that empties the log
       ledger.py judge DATABASE                                   one line of JSON
       ledger.py same ONE OTHER                                   whether both hold the same, but for farshore's own table

Each transaction of a writer raises its number in `done`, and says there how many rows and bytes of the ledger are its own: a copy that
holds half a transaction, or one without the one before it, contradicts itself. A writer prints each number once it is committed.
"""

import json
import random
import sqlite3
import sys
import time


def connect(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous = normal")
    return connection


def make(path, page_bytes):
    connection = connect(path)
    connection.execute(f"pragma page_size = {page_bytes}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table ledger (id integer primary key, writer int, content blob)")
    connection.execute("create index ledger_by_writer on ledger (writer)")
    connection.execute("create table done (writer int primary key, number int, rows int, bytes int) without rowid")


def transaction(connection, writer, chance, kind):
    connection.execute("begin immediate")
    row = connection.execute("select number, rows, bytes from done where writer = ?", (writer,)).fetchone()
    number, rows, size = row or (0, 0, 0)
    what = chance.randrange(100) if kind == "mixed" else 0
    if what < 70:
        for _ in range(chance.randrange(1, 12) if kind == "mixed" else 1):
            content = chance.randbytes(chance.randrange(10, 600))
            connection.execute("insert into ledger (writer, content) values (?, ?)", (writer, content))
            rows, size = rows + 1, size + len(content)
    elif what < 85:
        half = "writer = ? and id % 7 = ?"
        gone = connection.execute(
            f"select count(*), coalesce(sum(length(content)), 0) from ledger where {half}", (writer, number % 7)
        ).fetchone()
        connection.execute(f"delete from ledger where {half}", (writer, number % 7))
        rows, size = rows - gone[0], size - gone[1]
    elif what < 92:
        blob = chance.randrange(1, 2_000_000)
        connection.execute("insert into ledger (writer, content) values (?, zeroblob(?))", (writer, blob))
        rows, size = rows + 1, size + blob
    elif what < 96:
        connection.execute(f"create table if not exists t{writer}_{number % 5} (a, b primary key) without rowid")
    else:
        connection.execute(f"drop table if exists t{writer}_{chance.randrange(5)}")
    connection.execute("insert or replace into done values (?, ?, ?, ?)", (writer, number + 1, rows, size))
    if kind == "mixed" and chance.randrange(12) == 0:
        connection.execute("rollback")
        return None
    connection.execute("commit")
    return number + 1


def maintain(connection, chance):
    if chance.randrange(5) == 0:
        connection.execute("vacuum")
        return
    connection.execute("pragma busy_timeout = 200")
    connection.execute(f"pragma wal_checkpoint({chance.choice(['passive', 'full', 'restart', 'truncate'])})").fetchone()
    connection.execute("pragma busy_timeout = 60000")


def write(path, writer, seconds, per_second, kind):
    connection, chance = connect(path), random.Random(writer * 7919 + int(time.time()))
    begun, turns = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        turns += 1
        try:
            if kind == "mixed" and chance.randrange(100) < 3:
                maintain(connection, chance)
            else:
                number = transaction(connection, writer, chance, kind)
                if number:
                    print(number, flush=True)
        except sqlite3.OperationalError as why:
            if "locked" not in str(why) and "busy" not in str(why):
                raise
            if connection.in_transaction:
                connection.execute("rollback")
        ahead = begun + turns / per_second - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)


def truncate(path, writer):
    connection, chance = connect(path), random.Random(writer)
    for _ in range(chance.randrange(1, 30)):
        transaction(connection, writer, chance, "steady")
    answer = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    for _ in range(chance.randrange(0, 3)):
        transaction(connection, writer, chance, "steady")
    print(json.dumps({"busy": answer[0]}))


def judge(path):
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    integrity = connection.execute("pragma integrity_check").fetchall()
    wrong, numbers = [], {}
    tables = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    for writer, number, rows, size in connection.execute("select * from done") if "done" in tables else ():
        numbers[writer] = number
        held = connection.execute(
            "select count(*), coalesce(sum(length(content)), 0) from ledger where writer = ?", (writer,)
        ).fetchone()
        if held != (rows, size):
            wrong.append(f"writer {writer} at {number}: {held} for {(rows, size)}")
    print(json.dumps({"sound": integrity == [("ok",)], "wrong": wrong, "numbers": numbers}))


def content(path):
    connection = sqlite3.connect(path, timeout=60)
    connection.text_factory = bytes
    schema = sorted(connection.execute("select name, type, sql from sqlite_schema where sql is not null"))
    held = []
    for name, kind, sql in schema:
        if kind == b"table" and name != b"_farshore_hold":
            held.append((name, sorted(map(repr, connection.execute(f'select * from "{name.decode()}"')))))
    return [entry for entry in schema if entry[0] != b"_farshore_hold"], held


def main():
    verb, path, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    if verb == "make":
        make(path, int(rest[0]))
    elif verb == "write":
        write(path, int(rest[0]), float(rest[1]), float(rest[2]), rest[3])
    elif verb == "truncate":
        truncate(path, int(rest[0]))
    elif verb == "judge":
        judge(path)
    elif verb == "same":
        print(json.dumps({"same": content(path) == content(rest[0])}))


main()
