#!/usr/bin/env python3
"""Takes a farshore store apart without farshore. It reads the store and writes new directories, nothing else.

    cut.py show OBJECT                           an object's header, and its content where that is JSON
    cut.py list STORE DATABASE                   incarnations, backups, and what log there is
    cut.py base STORE DATABASE BACKUP DIR        a base backup's files into a new directory
    cut.py log  STORE DATABASE DIR [--from LSN]  the log, as files for pg_wal; DIR must be there
    cut.py head OBJECT CHUNK KEY                 whether KEY (64 hexadecimal digits) signed that the journal held CHUNK

STORE is a directory: a `file:` store, or a copy of a bucket's prefix made with the provider's own tool.
Options: --incarnation ID (the newest otherwise), --identity FILE (the age private key, for an encrypted store).

It needs Python 3.9 and the `zstd` tool, or the module `zstandard`. The module `blake3` adds the checks of digests;
without it only structure is checked, and that is said. An encrypted store needs `age` and the module `cryptography`; `head` needs
OpenSSL 3.
The format is journal/FORMAT.md; section numbers below are of that page.
"""
import argparse, bisect, hashlib, hmac, json, os, struct, subprocess, sys, tempfile
from pathlib import Path

try: import zstandard
except ImportError: zstandard = None
try: from blake3 import blake3
except ImportError: blake3 = None

KINDS = {1: "opening", 2: "data", 3: "timeline", 4: "gap", 5: "segment", 6: "index", 7: "head", 8: "part",
         9: "manifest", 10: "backup opening", 11: "expired run", 12: "sums", 13: "table"}
PLAIN_KINDS = ("opening", "timeline", "gap", "head", "backup opening", "expired run", "table")  # JSON, never encrypted


def fail(what):
    sys.exit(f"cut.py: {what}")


def lsn(offset):
    return f"{offset >> 32:X}/{offset & 0xFFFFFFFF:X}"


def from_lsn(text):
    high, low = text.split(":")[-1].split("/")
    return int(high, 16) << 32 | int(low, 16)


class Object:
    """One object, as section 2 draws it."""

    def __init__(self, path):
        self.path = path
        raw = Path(path).read_bytes()
        if len(raw) < 288 or raw[:8] != b"FARSHORE":
            fail(f"{path} is not a farshore object")
        (version, kind, self.codec, self.cipher) = struct.unpack_from("<HBBB", raw, 8)
        if version != 1 or kind not in KINDS or self.codec > 1 or self.cipher > 1:
            fail(f"{path}: a version, kind, codec or cipher that this script does not know")
        self.kind = KINDS[kind]
        self.store, self.incarnation = raw[16:32].hex(), raw[32:48].hex()
        self.number, self.generation = struct.unpack_from("<QQ", raw, 48)
        self.writer = raw[64:80].hex()
        (self.timeline, frames, self.start, self.end, self.plain_bytes, body,
         self.written) = struct.unpack_from("<IIQQQQq", raw, 80)
        self.before, self.after, self.salt, self.bound = raw[128:160], raw[160:192], raw[192:224], raw[:240]
        if 256 + body + 32 != len(raw):
            fail(f"{path} is cut off, or has something behind it")
        if blake3 and (blake3(raw[:240]).digest()[:16] != raw[240:256] or blake3(raw[:-32]).digest() != raw[-32:]):
            fail(f"{path}: the bytes are not those that were written")
        self.frames, at = [], 256
        for _ in range(frames):
            head = raw[at:at + 48]
            plain, stored, end = struct.unpack_from("<IIQ", head)
            if plain > 1 << 20 or at + 48 + stored > len(raw) - 32:
                fail(f"{path}: a frame is longer than its object")
            self.frames.append((plain, end, head, raw[at + 48:at + 48 + stored]))
            at += 48 + stored
        if at != len(raw) - 32:
            fail(f"{path}: frames and length do not fit")

    def plain(self, data_key=None):
        """The content: opened, decompressed, and cut back into frames for their digests."""
        # A segment's first frame is its table (section 9), in the clear and of no interest to a copy of the log.
        first = 1 if self.kind == "segment" else 0
        frames = self.frames[first:]
        stored = [frame[3] for frame in frames]
        if self.cipher == 1:
            if data_key is None:
                fail(f"{self.path} is encrypted: --identity FILE")
            stored = self.unsealed(data_key, first)
        if self.codec == 0:
            content = b"".join(stored)
        elif zstandard:
            content = b"".join(zstandard.ZstdDecompressor().decompress(piece, max_output_size=frame[0])
                               for piece, frame in zip(stored, frames))
        else:  # zstd frames one behind the other are a zstd file
            content = subprocess.run(["zstd", "-dc"], input=b"".join(stored), stdout=subprocess.PIPE, check=True).stdout
        wanted = self.plain_bytes - sum(frame[0] for frame in self.frames[:first])
        if len(content) != wanted:
            fail(f"{self.path}: {len(content)} plain bytes, not {wanted}")
        at = 0
        for plain, _, head, _ in frames:
            if blake3 and blake3(content[at:at + plain]).digest() != head[16:48]:
                fail(f"{self.path}: a frame's content is not what was written")
            at += plain
        return content

    def unsealed(self, data_key, first):
        """Section 3: HKDF-SHA-256 (RFC 5869) gives the object's key, AES-256-GCM opens each frame."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        secret = hmac.new(self.salt, data_key, hashlib.sha256).digest()
        key = hmac.new(secret, b"farshore v1 object\x01", hashlib.sha256).digest()
        pieces = []
        for number, (_, _, head, stored) in enumerate(self.frames):
            if number < first:
                continue
            last = b"\1" if number + 1 == len(self.frames) else b"\0"
            bound = self.bound + struct.pack("<I", number) + last + head
            pieces.append(AESGCM(key).decrypt(bytes(8) + struct.pack(">I", number), stored, bound))
        return pieces


def unwrapped(opening, identity):
    """The data key that an opening holds, with the age private key."""
    wrapped = json.loads(opening.plain())["key"]
    if wrapped is None or identity is None:
        return None
    done = subprocess.run(["age", "-d", "-i", identity], input=wrapped.encode(), stdout=subprocess.PIPE, check=True)
    return done.stdout


class Incarnation:
    """One incarnation of a database in a store."""

    def __init__(self, args):
        names = Path(args.store, "db", args.database)
        records = [json.loads(path.read_bytes()) for path in sorted((names / "incarnations").iterdir())]
        if not records:
            fail("the database has no incarnation here")
        self.all = records
        wanted = [record for record in records if args.incarnation in (None, record["incarnation"])]
        if not wanted:
            fail(f"there is no incarnation {args.incarnation}")
        self.record = wanted[-1]
        self.root = names / self.record["incarnation"]
        self.identity = args.identity

    def chunks(self):
        """The journal, section 5: dense numbers, each chunk naming the chain value of the one before. A segment (section 9)
        stands for the data chunks that were merged into it, whether they are still there or not."""
        number, before, merged = 0, None, {}
        for path in (self.root / "segments").glob("*-*-*-*-*"):
            first, last = (int(part, 16) for part in path.name.split("-")[3:])
            merged[first] = max(merged.get(first, (0, None)), (last, path))
        while True:
            last, path = merged.get(number, (number, self.root / "journal" / f"{number:016x}"))
            if not path.exists():
                if any(first < number <= last for first, (last, _) in merged.items()):
                    fail(f"chunk {number:x} is only in a segment that begins before it and after another: cut by hand")
                return
            chunk = Object(path)
            if chunk.number != number or chunk.incarnation != self.record["incarnation"]:
                fail(f"{path} is an object of another place")
            if before is not None and chunk.before != before:
                print(f"chunk {number:x} does not follow the one before: the journal ends there", file=sys.stderr)
                return
            yield chunk
            number, before = last + 1, chunk.after

    def backup(self, name):
        root = self.root / "backups" / name
        if not (root / "manifest").exists():
            fail(f"backup {name} has no manifest: it was never finished")
        key = unwrapped(Object(root / "opening"), self.identity)
        manifest = json.loads(Object(root / "manifest").plain(key))
        if manifest["format"] not in (1, 2):
            fail(f"backup {name} has format {manifest['format']}, which this script does not know")
        return Own(root, key, manifest)


class Own:
    """A backup's own bytes: those that its parts hold, one behind the other."""

    def __init__(self, root, key, manifest):
        self.root, self.key, self.manifest = root, key, manifest
        self.ends, end = [], 0
        for part in manifest["parts"]:
            end += part["plain_bytes"]
            self.ends.append(end)
        self.held = (None, b"")

    def read(self, at, length):
        while length:
            number = bisect.bisect_right(self.ends, at)
            if number == len(self.ends):
                fail(f"{self.root}: its parts end before byte {at}")
            if self.held[0] != number:
                self.held = (number, Object(self.root / f"part-{number:016x}").plain(self.key))
            begin = self.ends[number] - len(self.held[1])
            piece = self.held[1][at - begin:at - begin + length]
            yield piece
            at, length = at + len(piece), length - len(piece)


def whole_stream(here, own):
    """The bytes of all files, of which section 15 says that they may be an earlier backup's."""
    borrowed = own.manifest.get("borrowed")
    if borrowed is None:
        yield from own.read(0, own.ends[-1] if own.ends else 0)
        return
    holders = [own]
    for held in borrowed["from"]:
        holders.append(here.backup(held["backup"]))
        if (holders[-1].root / "manifest").read_bytes()[-32:].hex() != held["manifest"]:
            fail(f"backup {held['backup']} is not the one that is referred to")
    for length, whose, at in borrowed["pieces"]:
        yield from holders[whose].read(at, length)


def command_show(args):
    found = Object(args.object)
    print(f"{found.kind} number={found.number:x} generation={found.generation} timeline={found.timeline} "
          f"start={lsn(found.start)} end={lsn(found.end)} frames={len(found.frames)} plain_bytes={found.plain_bytes} "
          f"codec={found.codec} cipher={found.cipher}")
    if found.kind in PLAIN_KINDS or found.kind == "manifest" and found.cipher == 0:
        print(found.plain().decode())


def command_head(args):
    """Section 10: what was signed, put together anew and checked by OpenSSL; then the chunk, if it still has an object."""
    head, chunk = Object(args.object), Object(args.chunk)
    body = json.loads(head.plain())
    text = lambda value: struct.pack("<Q", len(value)) + value
    signed = (text(b"farshore 2026-11 signed head v1") + bytes.fromhex(head.store) + bytes.fromhex(head.incarnation)
              + text(body["database"].encode()) + struct.pack("<Q", head.number) + head.after
              + struct.pack("<IQQq", head.timeline, head.end, head.generation, head.written) + bytes.fromhex(args.key))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # RFC 8410: what stands before an Ed25519 public key in DER.
        (folder / "key").write_bytes(bytes.fromhex("302a300506032b6570032100" + args.key))
        (folder / "signed").write_bytes(signed)
        (folder / "signature").write_bytes(bytes.fromhex(body["signature"]))
        checked = subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", folder / "key", "-rawin",
                                  "-in", folder / "signed", "-sigfile", folder / "signature"], stdout=subprocess.DEVNULL)
    if checked.returncode != 0:
        fail(f"{args.object} was not signed by that key, or was changed")
    if (chunk.number, chunk.after, chunk.timeline, chunk.end) != (head.number, head.after, head.timeline, head.end):
        fail(f"{args.chunk} is not the chunk that was signed")
    print(f"signed: the journal of {body['database']} reached {lsn(head.end)} of timeline {head.timeline} with chunk {head.number:x}")


def command_list(args):
    here = Incarnation(args)
    for record in here.all:
        mark = "*" if record is here.record else " "
        print(f"{mark} incarnation {record['incarnation']} of {record['created']}: {record['reason']}")
    for root in sorted((here.root / "backups").glob("*")):
        if (root / "manifest").exists():
            head = Object(root / "manifest")
            print(f"backup {root.name} timeline {head.timeline} log from {lsn(head.start)}, consistent at {lsn(head.end)}")
        else:
            print(f"backup {root.name} was never finished")
    runs = []
    for chunk in here.chunks():
        is_log = chunk.kind in ("data", "segment")
        if is_log and runs and runs[-1][0] == chunk.timeline and runs[-1][2] == chunk.start:
            runs[-1][2] = chunk.end
        elif is_log:
            runs.append([chunk.timeline, chunk.start, chunk.end])
        elif chunk.kind == "gap":
            print(f"gap timeline {chunk.timeline} from {lsn(chunk.start)} to {lsn(chunk.end)}")
    for timeline, start, end in runs:
        print(f"log timeline {timeline} from {lsn(start)} to {lsn(end)}")


def place(base, path):
    """A path of the manifest, below the directory and nowhere else."""
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        fail(f"the manifest names {path!r}, which is not below the directory")
    return base.joinpath(*parts)


def command_base(args):
    here = Incarnation(args)
    own = here.backup(args.backup)
    manifest = own.manifest
    target = Path(args.directory).absolute()
    os.umask(0o077)  # PostgreSQL refuses a directory that others can read
    target.mkdir()
    for tablespace in manifest["tablespaces"]:
        # Beside the directory, never at the place the source named.
        there = Path(f"{target}-tablespace-{int(tablespace['oid'])}")
        there.mkdir()
        (target / "pg_tblspc").mkdir(exist_ok=True)
        (target / "pg_tblspc" / str(int(tablespace["oid"]))).symlink_to(there)
        print(f"tablespace {tablespace['oid']} of {tablespace['location']} is in {there}")
    for entry in manifest["entries"]:
        if entry["kind"] == "directory":
            place(target, entry["path"]).mkdir(parents=True, exist_ok=True)

    # The stream is read from front to back; entries stand in its order.
    stream, waiting, at, files, control = whole_stream(here, own), b"", 0, 0, None
    for entry in manifest["entries"]:
        if entry["kind"] != "file":
            continue
        path = entry["path"]
        skip = path.startswith("pg_wal/") or path in ("postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal")
        name = "tablespace_map.from-backup" if path == "tablespace_map" else path
        out = None if skip or path == "global/pg_control" else open(place(target, name), "wb")
        digest, left, held = hashlib.sha256(), entry["size"], []
        while at < entry["at"] or left:
            if not waiting:
                waiting = next(stream, b"")
                if not waiting:
                    fail("the stream ends before the manifest's last file")
            if at < entry["at"]:  # bytes of no entry mean nothing
                cut = min(len(waiting), entry["at"] - at)
                at, waiting = at + cut, waiting[cut:]
                continue
            piece = waiting[:left]
            waiting, at, left = waiting[len(piece):], at + len(piece), left - len(piece)
            digest.update(piece)
            if out:
                out.write(piece)
            elif path == "global/pg_control":
                held.append(piece)
        if entry.get("sha256") and digest.hexdigest() != entry["sha256"]:
            fail(f"{path}: its SHA-256 is not the manifest's")
        if out:
            out.close()
        if held:
            control = b"".join(held)
        files += 1
    for file in manifest["config_files"]:  # also those that lay outside the data directory
        kept = target / "config-of-the-source"
        kept.mkdir(exist_ok=True)
        (kept / file["path"].strip("/").replace("/", "_")).write_bytes(bytes.fromhex(file["content"]))
    (target / "pg_wal" / "archive_status").mkdir(parents=True, exist_ok=True)
    # Last, so that a directory that is not whole cannot be started.
    (target / "global" / "pg_control").write_bytes(control or fail("the backup has no control file"))
    start = manifest["start"]
    print(f"{files} files; PostgreSQL {manifest['major']}; the log is needed from {start['offset']} "
          f"of timeline {start['timeline']}, at least to {manifest['end']['offset']}")
    if not blake3:
        print("not checked: BLAKE3 of the parts (no module blake3); every file's SHA-256 was checked")


def command_log(args):
    here = Incarnation(args)
    size = here.record["segment_bytes"]
    first = from_lsn(args.begin) // size * size
    per_id = (1 << 32) // size

    def file(timeline, offset):
        number = offset // size
        return Path(args.directory, f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}")

    def write(timeline, offset, content):
        while content:
            path, within = file(timeline, offset), offset % size
            if not path.exists():
                path.touch(mode=0o600)
                os.truncate(path, size)  # zeros behind the last byte are the end of the log to PostgreSQL
            with open(path, "r+b") as out:
                out.seek(within)
                out.write(content[:size - within])
            now = min(len(content), size - within)
            offset, content = offset + now, content[now:]

    keys, end = {}, None
    for chunk in here.chunks():
        if chunk.kind == "opening":
            keys[chunk.generation] = unwrapped(chunk, here.identity)
        elif chunk.kind == "timeline":
            body = json.loads(chunk.plain())
            history = bytes.fromhex(body["history"])
            if history:
                Path(args.directory, f"{chunk.timeline:08X}.history").write_bytes(history)
            # The new timeline's first file begins with the old one's bytes before the fork.
            old, shared = file(body["parent"], chunk.start), chunk.start % size
            if shared and old.exists():
                write(chunk.timeline, chunk.start - shared, old.read_bytes()[:shared])
            print(f"timeline {chunk.timeline} leaves {body['parent']} at {lsn(chunk.start)}")
        elif chunk.kind == "gap":
            print(f"GAP: {lsn(chunk.start)} to {lsn(chunk.end)} of timeline {chunk.timeline} is not there")
        elif chunk.kind in ("data", "segment") and chunk.end > first:
            content = chunk.plain(keys.get(chunk.generation))
            drop = max(0, first - chunk.start)
            write(chunk.timeline, chunk.start + drop, content[drop:])
            end = chunk
    if end is None:
        fail(f"there is no log from {lsn(first)} on")
    print(f"log from {lsn(first)} to {lsn(end.end)} of timeline {end.timeline}")
    if not blake3:
        print("not checked: BLAKE3 of the chunks (no module blake3); PostgreSQL checks each record's CRC")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    verbs.add_parser("show").add_argument("object")
    head = verbs.add_parser("head")
    for name in ("object", "chunk", "key"):
        head.add_argument(name)
    for verb in ("list", "base", "log"):
        sub = verbs.add_parser(verb)
        sub.add_argument("store")
        sub.add_argument("database")
        if verb == "base":
            sub.add_argument("backup")
        if verb != "list":
            sub.add_argument("directory")
        if verb == "log":
            sub.add_argument("--from", dest="begin", default="0/0", metavar="LSN")
        sub.add_argument("--incarnation")
        sub.add_argument("--identity")
    args = parser.parse_args()
    {"show": command_show, "head": command_head, "list": command_list, "base": command_base, "log": command_log}[args.verb](args)


main()
