"""What each mode of durability has kept for SQLite and for plain files, at the moment at which a call had returned.

In a live instance a transaction commits, or a file is written. At that moment the guest looks how much of the journal's segment
the instance has written, which is what a crash of its process leaves at least, and how much of it has been synced (failing_disk.c
logs that), which is what a crash of the machine leaves at least. Later copies of the store with the segment cut there are opened.
What is expected is the table in docs/durability.md.
"""
import os
import pathlib
import shutil
import sqlite3
import time
import unittest

from harness import EndToEnd

LIBRARY = os.environ["FAILING_DISK_LIBRARY"]
TRANSACTIONS = 4

KEPT, WHOLE = "kept", "whole"  # all of it is there; what is there is whole, a state of some moment before
DATABASES = [(journal, synchronous) for journal in ("delete", "wal") for synchronous in ("NORMAL", "FULL", "EXTRA")]


def name_of(journal, synchronous):
    return f"{journal}-{synchronous}.db"


# What a crash of (the process, the machine) leaves.
ALL, NOTHING = (KEPT, KEPT), (WHOLE, WHOLE)
TABLE = {
    "always": {name_of(*database): ALL for database in DATABASES} | {"synced": ALL, "unsynced": ALL},
    "fsync": {
        # SQLite removes the rollback journal, and so commits, after its last fsync, unless told EXTRA.
        "delete-NORMAL.db": NOTHING, "delete-FULL.db": NOTHING, "delete-EXTRA.db": ALL,
        "wal-NORMAL.db": NOTHING, "wal-FULL.db": ALL, "wal-EXTRA.db": ALL,
        "synced": ALL, "unsynced": NOTHING,
    },
    "lazy": {name_of(*database): NOTHING for database in DATABASES} | {"synced": NOTHING, "unsynced": NOTHING},
}
TABLE["none"] = TABLE["lazy"]

INSIDE = f"""
import os, pathlib, sqlite3, time
def written_and_synced():
    written = os.stat(SEGMENT).st_size
    lines = [line.split() for line in open(LOG).read().splitlines()]
    return written, max([int(size) for size, path in lines if path == SEGMENT], default=0)
def open_database(journal, synchronous):
    connection = sqlite3.connect(f'{{journal}}-{{synchronous}}.db', isolation_level=None)
    assert connection.execute(f'PRAGMA journal_mode = {{journal}}').fetchone() == (journal,)
    connection.execute(f'PRAGMA synchronous = {{synchronous}}')
    connection.execute('PRAGMA wal_autocheckpoint = 0')
    connection.execute('CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, half INTEGER)')
    return connection
def commit(connection, k):
    # Twice: half a transaction would show.
    connection.execute('BEGIN')
    connection.execute('INSERT INTO t (half) VALUES (?)', (k,))
    connection.execute('INSERT INTO t (half) VALUES (?)', (k,))
    connection.execute('COMMIT')
    return written_and_synced()
def transactions(journal, synchronous):
    connection = open_database(journal, synchronous)
    found = [commit(connection, k) for k in range(1, {TRANSACTIONS} + 1)]
    connections.append(connection)  # closing would checkpoint
    return found
def write(name, sync):
    found = []
    for k in range(1, {TRANSACTIONS} + 1):
        with open(name, 'ab', buffering=0) as file:
            file.write(b'%d\\n' % k)
            if sync:
                os.fsync(file.fileno())
        found.append(written_and_synced())
    return found
connections = []
"""


class Durability(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store, self.log = self.work / "S", self.work / "synced"
        self.segment = self.store / "branches/main/journal/0000000001.seg"
        wrapper = self.work / "python"
        wrapper.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {self.python} "$@"\n')
        wrapper.chmod(0o755)
        self.python = str(wrapper)

    def live(self, durability):
        self.log.touch()
        guest = self.guest(self.store, "--durability", durability, env={
            "LD_PRELOAD": LIBRARY, "FAILING_DISK": str(self.store), "FAILING_DISK_LOG": str(self.log)})
        guest.do(f"SEGMENT, LOG = {str(self.segment)!r}, {str(self.log)!r}\n{INSIDE}")
        return guest

    def do_all(self, guest):
        """Name → at each of its transactions, how much of the segment was written, and how much synced."""
        found = {name_of(*database): guest.do(f"result = transactions(*{database!r})") for database in DATABASES}
        return found | {"synced": guest.do("result = write('synced', True)"),
                        "unsynced": guest.do("result = write('unsynced', False)")}

    def kept(self, name, bytes_of_segment):
        """How many transactions are there when only so much of the segment is left. What is there is whole."""
        store, tree = self.work / "cut", self.work / "tree"
        for left in (store, tree):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self.store, store, ignore=lambda *_: ["mnt", "control"])
        os.truncate(store / self.segment.relative_to(self.store), bytes_of_segment)
        self.reprise("replay", store, "--onto", tree)
        count = self.count(tree / name)
        self.reprise("verify", store)
        return count

    def count(self, path):
        if not path.exists():
            return 0
        if path.suffix != ".db":
            lines = path.read_text().split()
            self.assertEqual(lines, [str(k) for k in range(1, len(lines) + 1)])
            return len(lines)
        connection = sqlite3.connect(path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        if not connection.execute("SELECT name FROM sqlite_master").fetchall():
            return 0
        count, distinct, last = connection.execute("SELECT count(*), count(DISTINCT half), max(half) FROM t").fetchone()
        self.assertEqual((count, distinct), (2 * (last or 0), last or 0))
        connection.close()
        return distinct

    def test_what_a_crash_leaves(self):
        for durability, expected in TABLE.items():
            shutil.rmtree(self.store, ignore_errors=True)
            self.log.unlink(missing_ok=True)
            guest = self.live(durability)
            found = self.do_all(guest)
            guest.kill()
            self.log.unlink()
            for name, moments in found.items():
                for k, sizes in enumerate(moments, 1):
                    for crash, size, kept in zip(("process", "machine"), sizes, expected[name]):
                        if k < TRANSACTIONS and kept == WHOLE:
                            continue  # the last is enough
                        with self.subTest(durability=durability, of=name, crash=crash, k=k):
                            there = self.kept(name, size)
                            self.assertLessEqual(there, k if name.endswith(".db") else TRANSACTIONS)
                            if kept == KEPT:
                                self.assertGreaterEqual(there, k)

    def test_the_end_of_a_transaction_may_be_lost_where_the_table_says_so(self):
        """Else the table would promise too little."""
        guest = self.live("fsync")
        lost = []
        for name in ("delete-FULL.db", "wal-NORMAL.db"):
            moments = guest.do(f"result = transactions(*{name[:-3].split('-')!r})")
            lost.append((name, moments))
        guest.kill()
        for name, moments in lost:
            self.assertLess(min(self.kept(name, synced) - k for k, (_, synced) in enumerate(moments, 1)), 0, name)

    def test_a_clean_end_keeps_all(self):
        for durability in TABLE:
            with self.subTest(durability):
                shutil.rmtree(self.store, ignore_errors=True)
                guest = self.live(durability)
                self.do_all(guest)
                self.assertEqual(guest.end(), 0, guest.errors())
                shutil.rmtree(self.work / "tree", ignore_errors=True)
                self.reprise("replay", self.store, "--onto", self.work / "tree")
                for name in TABLE[durability]:
                    self.assertEqual(self.count(self.work / "tree" / name), TRANSACTIONS, name)

    def test_lazy_is_late_by_a_moment(self):
        guest = self.live("lazy")
        guest.do("result = write('unsynced', False)")
        time.sleep(0.5)  # five times the interval
        written, synced = guest.do("result = written_and_synced()")
        guest.kill()
        for size in (written, synced):
            self.assertEqual(self.kept("unsynced", size), TRANSACTIONS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
