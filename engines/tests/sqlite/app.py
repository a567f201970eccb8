"""An application that has a SQLite database open, and does what it is told: a line of statements each, answered by a line."""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("select count(*) from sqlite_schema").fetchall()
print("open", flush=True)
for line in sys.stdin:
    try:
        answer = [connection.execute(statement).fetchall() for statement in line.strip().split(";")][-1]
        print(answer, flush=True)
    except sqlite3.Error as why:
        print(f"error: {why}", flush=True)
