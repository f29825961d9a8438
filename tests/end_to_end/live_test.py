"""Leaders and followers, each a process: what one does the other sees, and how it catches up.

Over Unix sockets, or as REPRISE_TRANSPORT says: `tcp`, over the loopback and with a token.
"""
import os
import re
import time
import unittest

from harness import EndToEnd, free_port
from proxy import Proxy

# What guests use in every test here.
PRELUDE = r"""
import mmap, os, threading
def read(path):
    with open(path, 'rb') as f:
        return f.read().decode()
def write(path, text):
    with open(path, 'w') as f:
        f.write(text)
def replace(path, text):
    write(path + '.new', text)
    os.rename(path + '.new', path)
"""


OVER_TCP = os.environ.get("REPRISE_TRANSPORT") == "tcp"


class Live(EndToEnd):
    def setUp(self):
        super().setUp()
        self.a, self.b, self.c = (self.work / name for name in "ABC")
        self.marks = 0
        self.ports = {}
        self.token = self.work / "token"
        self.token.write_text("a secret of these tests\n")

    def endpoint(self, store):
        """Where the instance of this store listens."""
        return f"tcp:127.0.0.1:{self.port(store)}" if OVER_TCP else f"unix:{store}.sock"

    def port(self, name):
        if name not in self.ports:
            self.ports[name] = free_port()
        return self.ports[name]

    def instance(self, store, *options):
        if OVER_TCP:
            options = (*options, "--token-file", self.token)
        guest = self.guest(store, *options)
        guest.do(PRELUDE)
        return guest

    def leader(self, store=None):
        store = store or self.a
        return self.instance(store, "--listen", self.endpoint(store))

    def follower(self, store=None, of=None, *options):
        return self.instance(store or self.b, "--follow", self.endpoint(of or self.a), *options)

    def in_step(self, *followers):
        """The followers (B unless named) have what A has done so far."""
        self.marks += 1
        mark = f"m{self.marks}"
        self.reprise("mark", self.a, mark)
        for store in followers or (self.b,):
            self.reprise("wait-for", store, mark, "--timeout", 20)

    def catch_up(self, store=None):
        """How the follower was brought up to date, once it was."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            follow = self.stat(store or self.b)["follow"]
            if "catch_up" in follow and follow["state"] == "live":
                return follow["catch_up"]
            time.sleep(0.02)
        self.fail(f"not caught up: {follow}")

    # --- one tree, seen from two processes

    def test_what_was_cached_and_then_changed(self):
        a, b = self.leader(), self.follower()
        a.do("os.makedirs('dir/sub'); write('dir/file', 'first'); write('dir/other', 'other'); os.symlink('file', 'dir/link')")
        self.in_step()

        def seen():
            return b.do("path = 'dir/file'\n"
                        "try: result = [read(path), os.stat(path).st_size, sorted(os.listdir('dir')), read('dir/link')]\n"
                        "except FileNotFoundError: result = [None, None, sorted(os.listdir('dir')), None]")

        names = ["file", "link", "other", "sub"]
        self.assertEqual(seen(), ["first", 5, names, "first"])
        self.assertEqual(seen(), ["first", 5, names, "first"])  # from the kernel's cache now
        b.do("held = open('dir/file', 'rb'); held.read()")
        changes = [
            ("grown", "open('dir/file', 'a').write(' and more')", "first and more", names),
            ("grown by pages", "open('dir/file', 'a').write('.' * 100_000)", "first and more" + "." * 100_000, names),
            ("overwritten in place", "f = open('dir/file', 'r+'); f.write('FIRST'); f.close()",
             "FIRST and more" + "." * 100_000, names),
            ("truncated", "os.truncate('dir/file', 5)", "FIRST", names),
            ("grown by a hole", "os.truncate('dir/file', 9)", "FIRST\0\0\0\0", names),
            ("replaced by rename", "replace('dir/file', 'replaced')", "replaced", names),
            ("deleted", "os.unlink('dir/file')", None, ["link", "other", "sub"]),
            ("made again", "write('dir/file', 'again')", "again", names),
            ("exchanged for a link", "os.unlink('dir/file'); os.link('dir/other', 'dir/file')", "other", names),
            ("written by its other name", "open('dir/other', 'a').write(' name')", "other name", names),
            ("moved away", "os.rename('dir/file', 'dir/sub/file')", None, ["link", "other", "sub"]),
            ("and back, with others", "os.rename('dir/sub/file', 'dir/file'); write('dir/z', 'z')", "other name", [*names, "z"]),
            ("emptied", "open('dir/file', 'w').close()", "", [*names, "z"]),
        ]
        for what, change, text, listed in changes:
            with self.subTest(what):
                a.do(change)
                self.in_step()
                size = None if text is None else len(text)
                self.assertEqual(seen(), [text, size, listed, text])
        # The file that was held open is the one replaced long ago.
        self.assertEqual(b.do("held.seek(0); result = held.read().decode()"), "FIRST\0\0\0\0")
        a.do("os.chmod('dir/other', 0o600); os.utime('dir/other', (1, 2)); os.setxattr('dir/other', 'user.x', b'1')")
        self.in_step()
        self.assertEqual(b.do("s = os.stat('dir/other'); result = [s.st_mode & 0o7777, s.st_mtime, os.listxattr('dir/other')]"),
                         [0o600, 2, ["user.x"]])
        a.do("import shutil; shutil.rmtree('dir'); os.mkdir('dir')")
        self.in_step()
        self.assertEqual(b.do("result = [os.listdir('dir'), os.path.exists('dir/sub'), os.listdir('.')]"), [[], False, ["dir"]])
        self.assert_in_step(self.a, self.b)
        self.assertEqual(b.end(), 0, b.errors())
        self.assertEqual(a.end(), 0, a.errors())
        self.assert_in_step(self.a, self.b)
        # The follower has the same history from where it came in; only its log indices are its own.
        logs = [[line.split(maxsplit=1)[1] for line in self.reprise("log", store).splitlines()] for store in (self.a, self.b)]
        self.assertGreater(len(logs[1]), 20)
        self.assertEqual(logs[0][-len(logs[1]):], logs[1])

    def test_a_mapping_in_the_follower(self):
        a, b = self.leader(), self.follower()
        a.do("write('file', 'x' * 8192)")
        self.in_step()
        b.do("f = open('file', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); result = bytes(m[4096:4100]).decode()")
        a.do("f = open('file', 'r+'); f.seek(4096); f.write('new!'); f.close()")
        self.in_step()
        self.assertEqual(b.do("result = bytes(m[4090:4100]).decode()"), "xxxxxxnew!")

    def test_a_follower_is_read_only(self):
        a, b = self.leader(), self.follower()
        a.do("write('file', 'x')")
        self.in_step()
        refused = b.do("import errno\nresult = []\n"
                       "for attempt in (lambda: open('file', 'a'), lambda: open('new', 'w'), lambda: os.unlink('file'),\n"
                       "                lambda: os.mkdir('d'), lambda: os.chmod('file', 0o600), lambda: os.rename('file', 'y')):\n"
                       "    try: attempt(); result.append('done')\n"
                       "    except OSError as error: result.append(errno.errorcode[error.errno])")
        self.assertEqual(refused, ["EROFS"] * 6)
        self.assertIn("follows another", self.refused("mark", self.b, "here", status=3))
        self.assert_in_step(self.a, self.b)

    def test_hammer(self):
        """Hundreds of changes, each looked at as soon as it should be there, beside readers that keep everything cached."""
        a, b = self.leader(), self.follower()
        a.do("os.mkdir('d')\nfor i in range(8): write(f'd/{i}', '0;')\nwrite('whole', 'v0 ' * 3000)")
        self.in_step()
        overwrites = self.stat(self.b)["follow"]["overwrites"]
        b.do(r"""
import sys
sys.setswitchinterval(1e-4)  # the readers shall not keep the interpreter from who asks
stop = threading.Event()
wrong = []
def keep_reading():
    newest = 0
    while not stop.is_set():
        try:
            for name in os.listdir('d'):
                path = 'd/' + name
                try:
                    os.stat(path); read(path)
                except FileNotFoundError:
                    pass  # between the listing and now
            words = read('whole').split()
            if len(set(words)) != 1 or len(words) != 3000: wrong.append(f'a mix: {sorted(set(words))}, {len(words)} words')
            elif int(words[0][1:]) < newest: wrong.append(f'{words[0]} after v{newest}')
            else: newest = int(words[0][1:])
        except Exception as error:
            wrong.append(repr(error))
            return
readers = [threading.Thread(target=keep_reading) for _ in range(2)]
for reader in readers: reader.start()
""")
        expected = {str(i): "0;" for i in range(8)}
        for turn in range(1, 301):
            name = str(turn * 5 % 8)
            kind = turn % 6
            if kind == 0:
                change, expected[name] = f"replace('d/{name}', '{turn};')", f"{turn};"
            elif kind == 1:
                change = f"open('d/{name}', 'a').write('{turn};')"
                expected[name] = expected.get(name, "") + f"{turn};"
            elif kind == 2 and name in expected:
                change = f"os.unlink('d/{name}')"
                del expected[name]
            elif kind == 3 and name in expected:
                change = f"os.truncate('d/{name}', {len(expected[name]) // 2})"
                expected[name] = expected[name][:len(expected[name]) // 2]
            elif kind == 4 and name in expected:
                change = f"os.rename('d/{name}', 'd/{turn % 8}')"
                expected[str(turn % 8)] = expected.pop(name)
            else:
                change, expected[name] = f"write('d/{name}', '{turn};' * 2000)", f"{turn};" * 2000
            a.do(f"{change}\nreplace('whole', 'v{turn} ' * 3000)")
            self.ask(self.a, ask="mark", name=f"turn-{turn}")
            self.ask(self.b, ask="wait-for", mark=f"turn-{turn}", timeout_ms=20_000)
            found = b.do("result = {name: [read('d/' + name), os.stat('d/' + name).st_size] for name in os.listdir('d')}")
            wrong = {name: (found.get(name), [text, len(text)]) for name, text in expected.items()
                     if found.get(name) != [text, len(text)]}
            told = {name: [f"{len(side[0])} bytes that end with {side[0][-20:]!r}, st_size {side[1]}" if side else "missing"
                           for side in sides] for name, sides in wrong.items()}
            self.assertEqual(told, {}, f"found and expected after change {turn}: {change}")
            self.assertEqual(found.keys(), expected.keys(), f"after change {turn}: {change}")
        self.assertEqual(b.do("stop.set()\nfor reader in readers: reader.join()\nresult = wrong"), [])
        self.assert_in_step(self.a, self.b)
        follow = self.stat(self.b)["follow"]
        self.assertEqual(follow["overwrites"], overwrites)
        self.assertGreater(follow["digests_compared"], 10)

    def test_a_journal_with_a_limit(self):
        a, b = self.instance(self.a, "--listen", self.endpoint(self.a), "--journal-limit", "4M"), self.follower()
        a.do("write('first', 'kept')")
        for turn in range(12):
            a.do(f"open('noise', 'wb').write(os.urandom(2_000_000)); write('turn', '{turn}')")
            self.in_step()
            time.sleep(0.2)
        journal = self.stat(self.a)["journal"]
        deadline = time.monotonic() + 20
        while journal["bytes_on_disk"] > 4 << 20 and time.monotonic() < deadline:
            time.sleep(0.1)
            journal = self.stat(self.a)["journal"]
        self.assertLessEqual(journal["bytes_on_disk"], 4 << 20)
        self.assertGreater(journal["first"], 1)
        self.assertEqual(b.do("result = [read('first'), read('turn')]"), ["kept", "11"])
        self.assert_in_step(self.a, self.b)
        a.kill()
        self.reprise("verify", self.a)
        c = self.instance(self.a)
        self.assertEqual(c.do("result = [read('first'), read('turn'), os.stat('noise').st_size]"), ["kept", "11", 2_000_000])

    # --- coming back

    def test_a_killed_follower_catches_up_by_the_journal(self):
        a, b = self.leader(), self.follower()
        a.do("for i in range(50): write(f'file-{i}', str(i) * 5000)")
        self.in_step()
        b.kill()
        a.do("write('file-7', 'while away'); os.unlink('file-8'); os.rename('file-9', 'moved')")
        b = self.follower()
        self.in_step()
        self.assertEqual(b.do("result = [read('file-7'), os.path.exists('file-8'), read('moved'), len(os.listdir('.'))]"),
                         ["while away", False, "9" * 5000, 49])
        caught = self.catch_up()
        self.assertEqual(caught["tier"], "journal suffix")
        self.assertLess(caught["received_bytes"], 5000)
        self.assertGreater(caught["snapshot_bytes"], 250_000)
        self.assertIn("journal suffix", caught["reason"])
        self.assert_in_step(self.a, self.b)
        # Nothing missed: nothing sent.
        self.assertEqual(b.end(), 0, b.errors())
        b = self.follower()
        self.in_step()
        self.assertLess(self.catch_up()["received_bytes"], 2000)
        self.assert_in_step(self.a, self.b)

    def test_past_a_trimmed_head_by_snapshot(self):
        a, b = self.leader(), self.follower()
        a.do("for i in range(20): write(f'file-{i}', str(i) * 1000)")
        self.in_step()
        b.kill()
        a.do("write('file-7', 'while away')")
        made = self.reprise_json("snapshot", "create", self.a, "--trim")
        self.assertGreater(made["log_index"], 1)
        self.assertEqual(made["journal_first"], made["log_index"] + 1)
        a.do("write('file-8', 'after the snapshot')")
        b = self.follower()
        self.in_step()
        caught = self.catch_up()
        self.assertEqual(caught["tier"], "snapshot")
        self.assertNotIn("suffix_bytes", caught)
        self.assertRegex(caught["reason"], "trimmed")
        self.assertEqual(b.do("result = [read('file-7'), read('file-8')]"), ["while away", "after the snapshot"])
        self.assert_in_step(self.a, self.b)
        # What it got is kept: closed, opened again, and killed.
        self.assertEqual(b.end(), 0, b.errors())
        self.assert_in_step(self.a, self.b)
        b = self.follower()
        a.do("write('file-9', 'later')")
        self.in_step()
        self.assertEqual(self.catch_up()["tier"] in ("journal suffix", "nothing"), True)
        b.kill()
        self.assert_in_step(self.a, self.b)

    def test_a_follower_that_lost_its_store(self):
        a, b = self.leader(), self.follower()
        a.do("for i in range(20): write(f'file-{i}', str(i) * 1000)")
        self.in_step()
        b.kill()
        self.succeed("rm", "-rf", self.b)
        self.reprise("snapshot", "create", self.a, "--trim")
        b = self.follower()
        self.in_step()
        self.assertEqual(self.catch_up()["tier"], "snapshot")
        self.assertEqual(b.do("result = read('file-19')"), "19" * 1000)
        self.assert_in_step(self.a, self.b)

    def test_a_small_tree_with_a_long_journal_comes_as_a_snapshot(self):
        a = self.leader()
        a.do("for i in range(100): write('one', str(i % 10) * 50_000)")
        b = self.follower()
        self.in_step()
        caught = self.catch_up()
        self.assertEqual(caught["tier"], "snapshot")
        self.assertGreater(caught["suffix_bytes"], 4_000_000)
        self.assertLess(caught["received_bytes"], 100_000)
        self.assertIn("journal", caught["reason"])
        self.assertEqual(b.do("result = read('one')"), "9" * 50_000)
        self.assert_in_step(self.a, self.b)

    def test_a_large_tree_with_a_short_journal_comes_as_a_journal(self):
        """The other side of the same decision: files written once are shipped once either way; a copy kept history."""
        a, b = self.leader(), self.follower()
        a.do("write('large', 'x' * 2_000_000)")
        self.in_step()
        b.kill()
        a.do("f = open('large', 'r+'); f.seek(1_000_000); f.write('one page'); f.close()")
        self.follower()
        self.in_step()
        caught = self.catch_up()
        self.assertEqual(caught["tier"], "journal suffix")
        self.assertLess(caught["received_bytes"], 8192)

    def test_a_leader_takes_back_what_its_disk_lost(self):
        """Killed, and of what nobody had waited for the disk lost everything: the followers have it."""
        a, b = self.leader(), self.follower()
        a.do("for i in range(20): write(f'early-{i}', 'e')")
        self.in_step()  # what is before the mark is on the disk
        segment = self.a / "branches/main/journal/0000000001.seg"
        on_disk = segment.stat().st_size
        for i in range(30):
            a.do(f"write('late-{i}', 'late {i}' * 100)")
            self.ask(self.a, ask="stat")  # a batch of its own
        self.reprise("wait-for", self.b, self.stat(self.a)["position"], "--timeout", 20)
        overwrites = self.stat(self.b)["follow"]["overwrites"]
        a.kill()
        self.assertGreater(segment.stat().st_size, on_disk)
        os.truncate(segment, on_disk)
        self.assertNotIn("late-0", self.reprise("ls", self.a))

        a = self.leader()
        self.assertEqual(a.do("result = sum(read(f'late-{i}') == f'late {i}' * 100 for i in range(30))"), 30)
        self.assertRegex(a.errors(), r"was not closed cleanly; waiting up to 3\.0 s for followers")
        self.assertRegex(a.errors(), r"took back \d+ batches")
        self.assertGreaterEqual(self.stat(self.a)["opened"]["taken_back_batches"], 30)
        a.do("write('new', 'n')")
        self.in_step()
        self.assertEqual(self.stat(self.b)["follow"]["overwrites"], overwrites)
        self.assertEqual(b.do("result = read('late-29') + read('new')"), "late 29" * 100 + "n")
        self.assert_in_step(self.a, self.b)
        self.assertEqual(a.end(), 0)
        self.reprise("verify", self.a)
        # Closed cleanly, there is nothing to wait for.
        self.assertNotIn("waiting", self.leader().errors())

    def test_a_leader_goes_on_when_nobody_has_what_its_disk_lost(self):
        a = self.leader()
        a.do("write('file', 'text')")
        a.kill()
        begin = time.monotonic()
        a = self.instance(self.a, "--listen", self.endpoint(self.a), "--await-followers", 0.5)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertIn("waiting up to 0.5 s", a.errors())
        self.assertNotIn("took back", a.errors())
        self.assertEqual(a.end(), 0)

    def test_a_killed_leader_comes_back(self):
        a, b = self.leader(), self.follower()
        a.do("write('file', 'before'); os.sync()")
        self.in_step()
        overwrites = self.stat(self.b)["follow"]["overwrites"]
        a.kill()
        self.assertEqual(b.do("result = read('file')"), "before")  # a follower serves what it has
        a = self.leader()
        a.do("write('file', 'after')")
        self.in_step()
        self.assertEqual(b.do("result = read('file')"), "after")
        self.assert_in_step(self.a, self.b)
        self.assertEqual(self.stat(self.b)["follow"]["overwrites"], overwrites)

    def test_a_leader_that_went_on_without_its_tail_overwrites_who_has_it(self):
        """And what the follower had more is kept there as a snapshot."""
        a, b = self.leader(), self.follower()
        a.do("write('kept', 'kept')")
        self.in_step()
        a.do("write('lost', 'lost')")
        deadline = time.monotonic() + 20
        while not b.do("result = os.path.exists('lost') and read('lost') == 'lost'") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # until A has written it too: what is cut off below is this
        b.kill()
        a.kill()
        segment = self.a / "branches/main/journal/0000000001.seg"
        data = segment.read_bytes()
        self.assertIn(b"lost", data)
        segment.write_bytes(data[:data.rindex(b"FRM1")])
        a = self.instance(self.a, "--listen", self.endpoint(self.a), "--await-followers", 0)
        a.do("write('new', 'new')")
        b = self.follower()
        self.in_step()
        self.assertEqual(b.do("result = [read('kept'), read('new'), os.path.exists('lost') and read('lost') == 'lost']"), ["kept", "new", False])
        self.assert_in_step(self.a, self.b)
        self.assertEqual(self.stat(self.b)["follow"]["overwrites"], 1)
        self.assertIn("the peer has batches that the leader lacks", self.stat(self.b)["follow"]["catch_up"]["reason"])
        kept, = re.findall(r"kept as the branch (\S+):", b.errors())
        self.assertEqual(self.reprise("cat", f"{self.b}:{kept}:/lost"), "lost")

    def test_a_chain(self):
        a = self.leader()
        b = self.follower(self.b, self.a, "--listen", self.endpoint(self.b))
        c = self.follower(self.c, self.b)
        a.do("for i in range(30): write(f'file-{i}', str(i))")
        self.in_step(self.b, self.c)
        self.assertEqual(c.do("result = read('file-29')"), "29")
        a.do("replace('file-29', 'changed')")
        self.in_step(self.c)
        self.assertEqual(c.do("result = read('file-29')"), "changed")
        self.assert_in_step(self.a, self.b, self.c)
        # The one in the middle goes and comes back; what it missed reaches the last one too.
        b.kill()
        a.do("write('meanwhile', 'yes')")
        b = self.follower(self.b, self.a, "--listen", self.endpoint(self.b))
        self.in_step(self.b, self.c)
        self.assertEqual(c.do("result = read('meanwhile')"), "yes")
        self.assert_in_step(self.a, self.b, self.c)

    @unittest.skipIf(OVER_TCP, "the way that is cut is one of Unix sockets")
    def test_a_snapshot_comes_over_a_way_that_is_cut_again_and_again(self):
        a = self.leader()
        a.do("for times in range(3):\n"
             "    for i in range(300):\n"
             "        write(f'f{i}', os.urandom(50_000).hex())")
        way = Proxy(self.work / "way", f"{self.a}.sock")
        self.addCleanup(way.end)
        way.cut_after = 8_000_000
        c = self.instance(self.c, "--follow", f"unix:{self.work}/way")
        caught_up = self.catch_up(self.c)
        self.assertEqual(caught_up["tier"], "missing blobs", caught_up)
        self.assertGreater(way.cuts, 1)
        self.assertLess(way.passed_bytes, 50_000_000)  # for a tree of 30
        way.heal()
        self.in_step(self.c)
        self.assertEqual(a.do("result = read('f7')"), c.do("result = read('f7')"))
        self.assert_in_step(self.a, self.c)

    def test_waiting_has_an_end(self):
        a, b = self.leader(), self.follower()
        a.do("write('file', 'x')")
        self.in_step()
        began = time.monotonic()
        self.assertIn("not reached", self.refused("wait-for", self.b, "never", "--timeout", 0.3, status=1))
        self.assertLess(time.monotonic() - began, 5)
        token = self.stat(self.a)["position"]
        self.reprise("wait-for", self.b, token)
        b.kill()
        self.refused("wait-for", self.b, "never", "--timeout", 0.3, status=1)  # nobody will get there
        self.reprise("wait-for", self.b, "m1")  # this was reached


if __name__ == "__main__":
    unittest.main(verbosity=2)
