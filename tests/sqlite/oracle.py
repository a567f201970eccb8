"""What a SQLite database must hold after each of its transactions, known without farshore. The system's SQLite, in processes of their own.

usage: oracle.py make DATABASE ORACLE PAGE_BYTES AUTO_VACUUM
       oracle.py write DATABASE ORACLE WRITER SEED SECONDS PER_SECOND KIND    KIND: steady, or mixed: everything, and checkpoints and VACUUM between
       oracle.py watch COPY READS                                            reads all of a copy again and again until killed: a line for each read
       oracle.py look COPY                                                   reads all of it once
       oracle.py judge SPECIFICATION                                         holds what was read against the oracle

The oracle is a log of statements. Each transaction adds to `history` its number, one more than the last, and a nonce that nobody else has. With the writers' lock held, before it is
committed, it appends to ORACLE its number, its nonce, its parent's nonce (the last that it found in `history`) and its statements, whose values all follow from the entry. To know
what the database holds at (number, nonce), the statements are run again from the first on, in another database.

Why that is exact, whoever is killed (not the machine: nothing is synchronised):
- An entry stands in ORACLE before its transaction can be committed, and is whole then: `write` gave back its length. A torn line is one of a transaction that never was.
- A transaction that was not committed (killed, rolled back on purpose) leaves an entry, and another takes its number under another nonce. Nobody ever has it for a parent. So
  the entries are a tree whose one long branch is what was committed, and each state is found by its nonce: a copy that holds a nonce of
  another branch holds what never was.
- The branch is read off the primary's own `history`, and every acknowledged transaction must be on it.
VACUUM, checkpoints and farshore's own table change no content: they are in no entry. Statements use neither time nor chance, and no table's order of rows is relied on.

Where a copy stands is judged apart from what it says: a nonce is in the page that its transaction wrote to `history`, so in the journal's plain bytes it first stands within its transaction's record, behind
the record before. A copy at a position holds exactly the numbers whose nonces begin before it.
"""

import bisect
import hashlib
import json
import mmap
import os
import random
import re
import sqlite3
import sys
import time

MAGIC = b"\xf7oracle\xfe"
# Beyond, writers delete: all content is read again and again.
MOST_BYTES = 3_000_000


def connect(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous = normal")
    # Large transactions go to the log before they are over.
    connection.execute("pragma cache_size = 40")
    return connection


def reading(path):
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30, isolation_level=None)


def last(connection):
    return connection.execute("select number, nonce from history order by number desc limit 1").fetchone()


# What was done ------------------------------------------------------------------------------------------------------------------------


def value(held):
    """A statement's value, from what its entry says of it."""
    if isinstance(held, dict):
        return random.Random(held["seed"]).randbytes(held["bytes"])
    return held


def run(connection, does):
    for statement, values in does:
        connection.execute(statement, [value(held) for held in values]).fetchall()


def append(path, entry):
    line = b"\n" + json.dumps(entry).encode() + b"\n"
    oracle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(oracle, line) != len(line):
            raise OSError("the oracle is torn")
    finally:
        os.close(oracle)


def commit(connection, oracle, before, does, writer, rolls_back=False):
    number, parent = before or (0, b"")
    nonce = MAGIC + os.urandom(8)
    connection.execute("insert into history values (?, ?)", (number + 1, nonce))
    entry = {"number": number + 1, "nonce": nonce.hex(), "parent": parent.hex(), "does": does}
    entry.update(writer=writer, at=time.time_ns() // 1000)
    append(oracle, entry)
    connection.execute("rollback" if rolls_back else "commit")
    return None if rolls_back else (number + 1, nonce)


def make(path, oracle, page_bytes, auto_vacuum):
    connection = connect(path)
    connection.execute(f"pragma page_size = {page_bytes}")
    connection.execute(f"pragma auto_vacuum = {auto_vacuum}")
    connection.execute("pragma journal_mode = wal")
    does = [
        ["create table history (number integer primary key, nonce blob)", []],
        ["create table ledger (id integer primary key, writer int, content)", []],
        ["create index ledger_by_writer on ledger (writer)", []],
        ["create table tally (id int, bytes int)", []],
    ]
    connection.execute("begin immediate")
    run(connection, does)
    commit(connection, oracle, None, does, 0)


class Work:
    """What a writer does next, by its seed and by what it finds."""

    def __init__(self, writer, seed, kind):
        self.writer, self.chance, self.kind = writer, random.Random(seed), kind

    def blob(self, most):
        return {"seed": self.chance.randrange(1 << 32), "bytes": self.chance.randrange(1, most)}

    def value(self):
        chance = self.chance
        return chance.choice(
            [None, chance.randrange(-(1 << 63), 1 << 63), chance.random() * 10 ** chance.randrange(-9, 9), "šß漢 " * chance.randrange(40), self.blob(600)]
        )

    def insert(self, most=600):
        return ["insert into ledger (writer, content) values (?, ?)", [self.writer, self.blob(most)]]

    def statements(self, connection):
        chance = self.chance
        asked = {name: connection.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")}
        if (asked["page_count"] - asked["freelist_count"]) * asked["page_size"] > MOST_BYTES + 60 * asked["page_size"]:
            return [
                ["delete from ledger where length(content) > 20000 or id % 3 <> ?", [chance.randrange(3)]],
                ["delete from tally", []],
            ]
        if self.kind == "steady":
            return [self.insert()]
        kinds = [
            (22, lambda: [self.insert() for _ in range(chance.randrange(1, 12))]),
            (14, self.changes),
            (10, self.deletes),
            (5, lambda: [self.insert(2_000_000)]),
            (3, lambda: [["update ledger set content = zeroblob(?) where id = (select max(id) from ledger)", [chance.randrange(200_000)]]]),
            (4, self.bulk),
            (8, self.part),
            (26, lambda: self.table(connection)),
            (8, lambda: self.schema(connection)),
        ]
        return chance.choices([does for _, does in kinds], [weight for weight, _ in kinds])[0]()

    def changes(self):
        step = self.chance.randrange(2, 12)
        rest = self.chance.randrange(step)
        return [["update ledger set content = ?, writer = writer + 100 where id % ? = ?", [self.value(), step, rest]], self.insert()]

    def deletes(self):
        step = self.chance.randrange(2, 20)
        return [["delete from ledger where id % ? = ?", [step, self.chance.randrange(step)]]]

    def bulk(self):
        rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) select ?, 'row ' || i from n"
        return [[f"insert into ledger (writer, content) {rows}", [self.chance.randrange(2, 800), self.writer]]]

    def part(self):
        """A transaction of which a part is rolled back.

        A small part, that does not go to the log before it is rolled back: SQLite 3.40 then leaves frames of a committed transaction there without salts, where what was rolled back had overwritten its own
        frames (`iReCksum` outlives `sqlite3WalSavepointUndo`, wal.c; 3.51.3 sets it back). Whoever opens the database behind a crash loses all that was committed from there on. The oracle found it with
        no farshore beside: once in twenty rounds of three seconds.
        """
        return [self.insert(), ["savepoint a", []], self.insert(100), ["rollback to a", []], self.insert(), ["release a", []]]

    def table(self, connection):
        """Tables that come, change and go."""
        chance, name = self.chance, f"x{self.chance.randrange(5)}"
        if not connection.execute("select 1 from sqlite_schema where name = ?", (name,)).fetchone():
            form = chance.choice(["a, b text primary key) without rowid", "a integer primary key autoincrement, b)", "a, b)", "a, b, unique (b, a))"])
            made = [[f"create table {name} ({form}", []]]
            return made + ([[f"create index i{chance.randrange(1 << 40)} on {name} (a, b)", []]] if chance.randrange(2) else [])
        columns = [row[1] for row in connection.execute(f"pragma table_info({name})")]
        row = [f"insert or replace into {name} (a, b) values (?, ?)"]
        what = chance.randrange(20)
        if what < 8:
            return [row + [[chance.randrange(1 << 40), f"{chance.randrange(300)} {'x' * chance.randrange(500)}"]] for _ in range(chance.randrange(1, 40))]
        if what < 10:
            return [[f"delete from {name} where b > ?", [str(chance.randrange(300))]]]
        if what < 13 and len(columns) < 6:
            return [[f"alter table {name} add column c{chance.choice([n for n in range(9) if f'c{n}' not in columns])} default {chance.randrange(9)}.5", []]]
        if what < 15 and len(columns) > 2:
            return [[f"alter table {name} drop column {columns[-1]}", []]]
        if what < 17 and columns[2:]:
            return [[f"update {name} set {columns[-1]} = ?", [self.value()]]]
        other = f"x{chance.randrange(5)}"
        if what < 18 and not connection.execute("select 1 from sqlite_schema where name = ?", (other,)).fetchone():
            return [[f"alter table {name} rename to {other}", []]]
        return [[f"drop table {name}", []]]

    def schema(self, connection):
        chance = self.chance
        what = chance.randrange(6)
        if what == 0:
            return [[f"pragma user_version = {chance.randrange(1 << 31)}", []], [f"pragma application_id = {chance.randrange(1 << 31)}", []]]
        if what == 1:
            return [["analyze ledger", []]]
        kind, name, made = chance.choice(
            [
                ("trigger", "counts", "create trigger counts after insert on ledger begin insert into tally values (new.id, length(new.content)); end"),
                ("view", "writers", "create view writers as select writer, count(*) from ledger group by writer"),
                ("index", "ledger_by_length", "create index ledger_by_length on ledger (length(content), id)"),
            ]
        )
        there = connection.execute("select 1 from sqlite_schema where name = ?", (name,)).fetchone()
        return [[f"drop {kind} {name}", []] if there else [made, []], self.insert()]

    def maintain(self, connection):
        """What changes no content."""
        what = self.chance.randrange(8)
        if what < 2:
            connection.execute("vacuum")
        elif what == 2:
            connection.execute(f"pragma incremental_vacuum({self.chance.randrange(1, 40)})").fetchall()
        else:
            connection.execute("pragma busy_timeout = 200")
            kind = self.chance.choice(["passive", "full", "restart", "truncate"])
            connection.execute(f"pragma wal_checkpoint({kind})").fetchone()
            connection.execute("pragma busy_timeout = 60000")


def write(path, oracle, writer, seed, seconds, per_second, kind):
    connection, work = connect(path), Work(writer, seed, kind)
    begun, turns = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        turns += 1
        try:
            what = work.chance.randrange(100) if kind == "mixed" else 99
            if what < 4:
                work.maintain(connection)
            elif what < 6:
                # The last one that closes it copies the log back, where nobody holds it.
                connection.close()
                connection = connect(path)
            else:
                connection.execute("begin immediate")
                before = last(connection)
                does = work.statements(connection)
                run(connection, does)
                done = commit(connection, oracle, before, does, writer, rolls_back=what < 12)
                if done:
                    # At once: half a line would be taken for the begin of another's.
                    os.write(1, f"{done[0]} {done[1].hex()}\n".encode())
        except sqlite3.OperationalError as why:
            if "locked" not in str(why) and "busy" not in str(why):
                raise
            connection.execute("pragma busy_timeout = 60000")
            if connection.in_transaction:
                connection.execute("rollback")
        ahead = begun + turns / per_second - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)


# What is held -------------------------------------------------------------------------------------------------------------------------


def digest(rows):
    """Of rows in order, with the kind of each value."""
    held = hashlib.sha256()
    for row in rows:
        # A large value is a digest of its own, in a form that no value has.
        held.update(repr([(len(v), hashlib.sha256(v).hexdigest()) if isinstance(v, bytes) and len(v) > 256 else v for v in row]).encode())
    return held.hexdigest()[:16]


def content(connection):
    """All that an application can see, by name, but for farshore's own table."""
    asked = "select type, name, tbl_name, sql from sqlite_schema where tbl_name <> '_farshore_hold' and name <> 'sqlite_sequence'"
    schema = connection.execute(asked).fetchall()
    held = {"schema": digest(sorted(schema, key=repr))}
    # VACUUM takes an empty one away.
    if connection.execute("select 1 from sqlite_schema where name = 'sqlite_sequence'").fetchone():
        sequences = connection.execute("select * from sqlite_sequence order by 1, 2").fetchall()
        held |= {"sequences": digest(sequences)} if sequences else {}
    for name in ("user_version", "application_id", "encoding", "page_size", "auto_vacuum"):
        held[name] = str(connection.execute(f"pragma {name}").fetchone()[0])
    for name in (name for kind, name, _, _ in schema if kind == "table"):
        columns = len(connection.execute(f'select * from "{name}" limit 0').description)
        order = ", ".join(str(at + 1) for at in range(columns))
        held[f"table {name}"] = digest(connection.execute(f'select * from "{name}" order by {order}'))
    return held


def look(connection, whole):
    """All of it in one read transaction; `whole`: SQLite finds it so."""
    connection.execute("begin")
    number, nonce = last(connection)
    said = {"number": number, "nonce": nonce.hex(), "content": content(connection)}
    if whole:
        found = connection.execute("pragma integrity_check").fetchall()
        if found != [("ok",)]:
            said["wrong"] = f"it is not sound: {found[:5]}"
    if last(connection) != (number, nonce):
        said["wrong"] = "a read transaction saw two states"
    connection.execute("commit")
    return said


def watch(path, reads):
    """One reader that stays and one that comes anew each time; none sees a state before one that was seen, nor before what a former one saw."""
    newest = max((json.loads(line).get("number", 0) for line in whole_lines(reads)), default=0)
    stays, turns = None, 0
    with open(reads, "a", encoding="utf-8") as out:
        while True:
            turns += 1
            try:
                stays = stays or reading(path)
                comes = reading(path)
                for connection in (stays, comes):
                    said = look(connection, turns % 10 == 0)
                    if said["number"] < newest:
                        said["wrong"] = f"behind transaction {newest} it went back to {said['number']}"
                    newest = max(newest, said["number"])
                    out.write(json.dumps(said) + "\n")
                comes.close()
            except sqlite3.Error as why:
                out.write(json.dumps({"wrong": f"reading fails: {why!r}"}) + "\n")
                time.sleep(0.1)
            out.flush()
            time.sleep(0.003)


def whole_lines(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as lines:
        # A reader that is killed leaves half a line.
        return [line for line in lines if line.endswith("}\n")]


# Judging ------------------------------------------------------------------------------------------------------------------------------


class Oracle:
    def __init__(self, path):
        self.entries, self.torn = {}, 0
        with open(path, "rb") as lines:
            for line in lines:
                if line.strip():
                    try:
                        entry = json.loads(line)
                    except ValueError:
                        self.torn += 1
                        continue
                    self.entries[bytes.fromhex(entry["nonce"])] = entry

    def branch(self, history, wrong):
        """That `history` is a branch of the tree from its root; its entries."""
        branch, parent = [], b""
        for number, nonce in history:
            entry = self.entries.get(nonce)
            if entry is None or (entry["number"], entry["parent"]) != (number, parent.hex()) or number != len(branch) + 1:
                wrong.append(f"the primary's transaction {number} is not the oracle's")
                break
            branch.append(entry)
            parent = nonce
        return branch


def replayed(branch, sizes):
    """The database behind each entry of a branch."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(f"pragma page_size = {sizes['page_size']}")
    connection.execute(f"pragma auto_vacuum = {sizes['auto_vacuum']}")
    for entry in branch:
        connection.execute("begin")
        run(connection, entry["does"])
        connection.execute("insert into history values (?, ?)", (entry["number"], bytes.fromhex(entry["nonce"])))
        connection.execute("commit")
        yield connection


def first_places(path, start):
    """Where each nonce stands first in a journal's plain bytes."""
    places = {}
    if os.path.getsize(path) == 0:
        return places
    with open(path, "rb") as log, mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ) as held:
        for found in re.finditer(re.escape(MAGIC) + b"(?s:.{8})", held):
            places.setdefault(found.group(), start + found.start())
    return places


def judge_places(asks, log, branch, wrong):
    """That what was found at each position of an incarnation is what its log says. The first is where its base begins: what that holds is believed."""
    places = first_places(log["file"], log["start"])
    known = {bytes.fromhex(entry["nonce"]) for entry in branch}
    wrong.extend(f"the journal holds a transaction that was never committed: {nonce.hex()}" for nonce in places if nonce not in known)
    if not asks:
        # It was left before its first base was complete: nothing tells which of its pages are older than it.
        return
    at = [places.get(bytes.fromhex(entry["nonce"])) for entry in branch]
    asks = sorted(asks, key=lambda ask: ask["position"])
    base = asks[0]["said"]["number"]
    # From the base on each first place is behind the one before it.
    numbers = [(place, number) for number, place in enumerate(at, 1) if place is not None and number > base]
    if numbers != sorted(numbers):
        wrong.append(f"the journal's transactions are not in the order of their commits: {log['file']}")
    if [number for _, number in numbers] != list(range(base + 1, base + 1 + len(numbers))):
        wrong.append(f"the journal lacks a transaction among those behind its base: {log['file']}")
    for ask in asks:
        held = base + bisect.bisect_left(numbers, (ask["position"], 0))
        if ask["said"]["number"] != held:
            wrong.append(f"{ask['label']}: it is at transaction {ask['said']['number']}, and the journal up to there holds {held}")
        # What was asked for lies behind the second next: then the next one was whole.
        if ask.get("asked") is not None and base + bisect.bisect_left(numbers, (ask["asked"], 0)) > held + 1:
            wrong.append(f"{ask['label']}: it stops at transaction {held}, and was asked for {ask['asked']}")


def judge(path):
    with open(path, encoding="utf-8") as text:
        specification = json.load(text)
    wrong, oracle = [], Oracle(specification["oracle"])
    primary = reading(specification["primary"])
    sizes = {name: primary.execute(f"pragma {name}").fetchone()[0] for name in ("page_size", "auto_vacuum")}
    branch = oracle.branch(primary.execute("select number, nonce from history order by number").fetchall(), wrong)
    acknowledged = 0
    for file in specification["acknowledged"]:
        with open(file, encoding="utf-8") as lines:
            for line in (line for line in lines if line.endswith("\n")):
                number, nonce = line.split()
                acknowledged += 1
                if int(number) > len(branch) or branch[int(number) - 1]["nonce"] != nonce:
                    wrong.append(f"transaction {number} was committed, and the primary lacks it")
    asks = [{"label": "the primary", "said": look(primary, True)}]
    for copy in specification["copies"]:
        asks.append(copy | {"said": look(reading(copy["file"]), True)})
    asks.extend(specification["looks"])
    places = [ask for ask in asks if "position" in ask]
    reads = 0
    for file in specification["reads"]:
        for line in whole_lines(file):
            reads += 1
            asks.append({"label": f"read {reads} of {os.path.basename(file)}", "said": json.loads(line)})
    by_number = {}
    for ask in asks:
        said = ask["said"]
        if "wrong" in said:
            wrong.append(f"{ask['label']}: {said['wrong']}")
        if "number" not in said:
            continue
        number = said["number"]
        if number > len(branch) or branch[number - 1]["nonce"] != said["nonce"]:
            wrong.append(f"{ask['label']}: it holds transaction {number} with nonce {said['nonce']}, which was never committed")
            continue
        if ask.get("at") is not None and branch[number - 1]["at"] > ask["at"]:
            wrong.append(f"{ask['label']}: transaction {number} began behind the time that was asked for")
        by_number.setdefault(number, []).append(ask)
    furthest = max(by_number, default=0)
    for number, connection in enumerate(replayed(branch[:furthest], sizes), 1):
        if number in by_number:
            must = content(connection)
            for ask in by_number[number]:
                held = ask["said"]["content"]
                if held != must:
                    differ = sorted(name for name in held.keys() | must.keys() if held.get(name) != must.get(name))
                    wrong.append(f"{ask['label']}: at transaction {number} {', '.join(differ)} differ from the oracle")
    for incarnation, log in specification["logs"].items():
        judge_places([ask for ask in places if str(ask["incarnation"]) == incarnation], log, branch, wrong)
    numbers = {ask["label"]: ask["said"]["number"] for ask in asks[: 1 + len(places)]}
    said = {"wrong": wrong[:20], "numbers": numbers, "transactions": len(branch), "reads": reads, "states": len(by_number)}
    print(json.dumps(said | {"acknowledged": acknowledged, "uncommitted": len(oracle.entries) - len(branch), "torn": oracle.torn}))


def main():
    verb, path, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    if verb == "make":
        make(path, rest[0], int(rest[1]), int(rest[2]))
    elif verb == "write":
        write(path, rest[0], int(rest[1]), int(rest[2]), float(rest[3]), float(rest[4]), rest[5])
    elif verb == "watch":
        watch(path, rest[0])
    elif verb == "look":
        print(json.dumps(look(reading(path), True)))
    elif verb == "judge":
        judge(path)


main()
