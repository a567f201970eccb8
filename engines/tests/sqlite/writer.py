"""A writer of a SQLite database, as an application would be one: an own process, with the system's SQLite.

usage: writer.py DATABASE SEED SECONDS KIND [PER_SECOND]

KIND: steady    small transactions, by SQLite's own defaults
      uncopied  the same, and never copies the log back
      large     one of few rows is written over by a MiB each time
      mixed     inserts, updates, deletes, schema changes, large blobs, VACUUM, and checkpoints of all kinds
      reader    reads that overlap, so that there is always one
Prints how many transactions it committed.
"""

import random
import sqlite3
import sys
import time

database, seed, seconds, kind = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
per_second = float(sys.argv[5]) if len(sys.argv) > 5 else None
chance = random.Random(seed)
# Pages that would stay as they are are not written.
BLOBS = [chance.randbytes(1 << 20) for _ in range(2)] if kind == "large" else []
end = time.monotonic() + seconds


def connect():
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous = normal")
    if kind == "uncopied":
        connection.execute("pragma wal_autocheckpoint = 0")
    return connection


def steady(connection, number):
    connection.execute("begin immediate")
    connection.execute(
        "insert into ledger (writer, number, content) values (?, ?, ?)",
        (seed, number, chance.randbytes(chance.randrange(10, 400))),
    )
    connection.execute("commit")


def large(connection, number):
    connection.execute(
        "insert or replace into ledger (id, writer, number, content) values (?, ?, ?, ?)",
        (1 + number % 16, seed, number, BLOBS[number // 16 % 2]),
    )


def mixed(connection, number):
    what = chance.randrange(100)
    if what < 4:
        mode = chance.choice(["passive", "full", "restart", "truncate"])
        connection.execute("pragma busy_timeout = 200")
        connection.execute(f"pragma wal_checkpoint({mode})").fetchone()
        connection.execute("pragma busy_timeout = 60000")
        return
    if what < 5:
        connection.execute("vacuum")
        return
    connection.execute("begin immediate")
    if what < 60:
        for _ in range(chance.randrange(1, 20)):
            connection.execute(
                "insert into ledger (writer, number, content) values (?, ?, ?)",
                (seed, number, chance.randbytes(chance.randrange(10, 2000))),
            )
    elif what < 75:
        connection.execute("update ledger set content = ? where id % 17 = ?", (chance.randbytes(300), number % 17))
    elif what < 85:
        connection.execute("delete from ledger where id % 13 = ?", (number % 13,))
    elif what < 92:
        connection.execute("insert into ledger (writer, number, content) values (?, ?, zeroblob(?))", (seed, number, chance.randrange(1, 3_000_000)))
    elif what < 96:
        connection.execute(f"create table if not exists t{seed}_{number % 5} (a, b primary key) without rowid")
        connection.execute(f"insert or replace into t{seed}_{number % 5} values (1, ?)", (number,))
    else:
        connection.execute(f"drop table if exists t{seed}_{chance.randrange(5)}")
    if chance.randrange(10) == 0:
        connection.execute("rollback")
    else:
        connection.execute("commit")


def reader(connections, number):
    # The next read begins before the last one ends.
    connection = connections[number % 2]
    connection.execute("begin")
    connection.execute("select count(*) from ledger").fetchone()
    time.sleep(0.01)
    other = connections[(number + 1) % 2]
    if other.in_transaction:
        other.execute("commit")


def main():
    connections = [connect(), connect()]
    number = 0
    begun = time.monotonic()
    while time.monotonic() < end:
        number += 1
        try:
            if kind == "reader":
                reader(connections, number)
            else:
                {"mixed": mixed, "large": large}.get(kind, steady)(connections[0], number)
        except sqlite3.OperationalError as why:
            if "locked" not in str(why) and "busy" not in str(why):
                raise
            if connections[0].in_transaction:
                connections[0].execute("rollback")
        if per_second:
            ahead = begun + number / per_second - time.monotonic()
            if kind == "large":
                # Who waited has lost the time.
                ahead = 1 / per_second
            if ahead > 0:
                time.sleep(ahead)
    print(number)


main()
