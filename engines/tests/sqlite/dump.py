"""Prints a digest of all that a SQLite database holds."""

import hashlib
import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1])
connection.text_factory = bytes
digest = hashlib.sha256()
tables = []
for name, kind, sql in sorted(connection.execute("select name, type, sql from sqlite_schema where sql is not null")):
    digest.update(name + b"\0" + sql + b"\0")
    if kind == b"table":
        tables.append(name.decode())
for name in tables:
    for row in connection.execute(f'select * from "{name}"'):
        digest.update(repr(row).encode())
print(digest.hexdigest())
