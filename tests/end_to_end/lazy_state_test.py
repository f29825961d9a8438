"""ls, cat and diff of a stored state read what they show: what is damaged elsewhere is no concern of theirs."""
import random
import unittest

from harness import REPRISE, EndToEnd, execute

FILES = 40
FILE_BYTES = 40_000


class LazyState(EndToEnd):
    """One snapshot with files whose bytes are random and in the store once; the journal before it still there."""

    def setUp(self):
        super().setUp()
        self.store = self.work / "S"
        chance = random.Random(5)
        self.bytes = {f"f{i:02}": chance.randbytes(FILE_BYTES) for i in range(FILES)}
        source = self.work / "source"
        source.mkdir()
        for name, data in self.bytes.items():
            (source / name).write_bytes(data)
        (source / "d").mkdir()
        (source / "d" / "l").symlink_to("x" * 3_000)  # that lies in no page of inodes
        self.run_inside(self.store, f"cp -a {source}/. .")

    def damage(self, name):
        """Wrong bytes in the file's blob; random bytes are stored as they are."""
        part = self.bytes[name][8192 + 100:8192 + 400]
        found = 0
        for pack in (self.store / "packs").glob("*.pack"):
            data = pack.read_bytes()
            at = data.find(part)
            while at >= 0:
                found += 1
                with open(pack, "r+b") as file:
                    file.seek(at)
                    file.write(b"damaged")
                at = data.find(part, at + 1)
        self.assertEqual(found, 1)

    def take(self, *words):
        self.reprise("mark", self.store, "taken")
        self.reprise("snapshot", "create", self.store, *words)

    def check_bytes(self, name):
        self.succeed("sh", "-c", f"{REPRISE} cat {self.store}@taken:/{name} | cmp - {self.work}/source/{name}")

    def test_what_is_damaged_is_missed_by_who_needs_it_alone(self):
        self.take("--trim")
        self.run_inside(self.store, "echo more >> f08; rm f09")
        self.damage("f07")
        self.assertEqual(self.reprise("ls", f"{self.store}@taken").split(), ["d", *sorted(self.bytes)])
        self.assertIn(f" -> {'x' * 3_000}\n", self.reprise("ls", "-l", f"{self.store}@taken:/d"))
        self.assertIn(" -> xxx", self.reprise("ls", "-l", f"{self.store}@taken:/d/l"))
        for name in ("f06", "f08"):
            self.check_bytes(name)
        done = execute([REPRISE, "cat", f"{self.store}@taken:/f07"])
        self.assertEqual(done.status, 3, done)
        self.assertRegex(done.err, r"on which the bytes of inode 0x[0-9a-f]+ \(40.0 kB\) depend: .*\.pack: expected blob")
        self.assertEqual(done.out, "")

        # Of two states only what differs is needed.
        names = [self.store, f"{self.store}@taken"][::-1]
        self.assertEqual(self.reprise("diff", *names, status=1), "M   f08\nD   f09\n")
        self.assertIn("1 deleted, 1 changed", self.reprise("diff", "--stat", *names, status=1))
        self.assertIn("f08", self.reprise("diff", "--patch", *names, status=1))

    def test_what_the_journal_can_give_back_is_read_from_there(self):
        self.take()
        self.run_inside(self.store, "echo more >> f08; rm f07")
        self.damage("f07")
        for name in ("f06", "f07"):
            self.check_bytes(name)
        names = [f"{self.store}@taken", self.store]
        self.assertEqual(self.reprise("diff", *names, status=1), "D   f07\nM   f08\n")
        self.assertIn("f07", self.reprise("diff", "--stat", *names, status=1))


if __name__ == "__main__":
    unittest.main(verbosity=2)
