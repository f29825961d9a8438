"""`reprise diff`: what it lists, and that its patches bring git from one state to the other, byte for byte."""
import os
import random
import unittest

from harness import EndToEnd, execute

BEFORE = r"""
mkdir -p a b 'sp ace' d/e; seq 1 100 > a/n; echo old > b/gone; printf 'x\0y' > bin; ln -s n a/l; mkfifo ff
echo q > 'sp ace/q"ü'; echo deep > d/e/f; echo same > d/e/g; printf 'no newline' > nonl; printf 'a\nb' > nn; echo t > type
python3 -c 'import random; open("big", "wb").write(random.Random(5).randbytes(300000))'
"""
AFTER = r"""
sed -i '50s/.*/changed/;90d' a/n; rm b/gone; printf 'x\0zz' > bin; mv 'sp ace' space2; mv d dd; echo more >> dd/e/f
chmod +x nonl; printf 'a\nb\n' > nn; printf Q | dd of=big bs=1 seek=5000 conv=notrunc 2>/dev/null
ln -sfn m a/l; : > empty; mkdir nd; rm ff; echo new > fresh; rm type; ln -s x type; cp nn nn2; mv nn2 nn
"""


class Diff(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store = self.work / "S"

    def two_states(self, before, after):
        self.run_inside(self.store, before)
        self.reprise("mark", self.store, "before")
        self.run_inside(self.store, after)
        return f"{self.store}@before", str(self.store)

    def export(self, state, name):
        self.reprise("snapshot", "export", state, self.work / name)
        return self.work / name

    def test_lists_what_changed(self):
        one, two = self.two_states(BEFORE, AFTER)
        self.assertEqual(self.reprise("diff", one, one), "")
        lines = self.reprise("diff", one, two, status=1).splitlines()
        self.assertEqual(lines, ["M   a/l", "M   a/n", "D   b/gone", "M   big", "M   bin", "R   d/ -> dd/", "M   dd/e/f",
                                 "A   empty", "D   ff", "A   fresh", "A   nd/", "M   nn", "P   nonl",
                                 "R   sp ace/ -> space2/", "T   type"])
        # The other way round, and with a directory, which has no inode ids to know a rename by.
        self.assertIn("R   dd/ -> d/", self.reprise("diff", two, one, status=1).splitlines())
        out = self.export(two, "out")
        self.assertEqual(self.reprise("diff", two, out), "")
        self.assertEqual(self.reprise("diff", two, f"dir:{out}"), "")
        lines = self.reprise("diff", one, out, status=1).splitlines()
        for line in ("D   d/", "D   d/e/", "D   d/e/f", "A   dd/e/g", "D   sp ace/q\"ü", "T   type"):
            self.assertIn(line, lines)
        (out / "a/n").chmod(0o600)
        self.assertEqual(self.reprise("diff", two, out, status=1), "P   a/n\n")

    def test_stat_and_json(self):
        one, two = self.two_states(BEFORE, AFTER)
        lines = self.reprise("diff", "--stat", one, two, status=1).splitlines()
        self.assertIn("M   big  300 kB -> 300 kB, 4.10 kB in blocks that differ", lines)
        self.assertRegex(lines[-1], r"^3 added, 2 deleted, 10 changed; ")
        lines = self.reprise("diff", "--json", one, two, status=1).splitlines()
        self.assertEqual(len(lines), 15)

    def check_patch(self, one, two, empty_directories=()):
        """git-apply(1) makes one state into the other; but what is no file it does not know of."""
        patch = self.work / "patch"
        done = execute([self.program, "diff", "--patch", one, two])
        self.assertEqual(done.status, 1, done)
        patch.write_bytes(done.out.encode(errors="surrogateescape"))
        made, wanted = self.export(one, "made"), self.export(two, "wanted")
        self.succeed("git", "apply", "--verbose", patch, cwd=made)
        for top in (made, wanted):
            for path in sorted(top.rglob("*"), reverse=True):
                if path.is_fifo():
                    path.unlink()
                elif path.is_dir() and not path.is_symlink() and not os.listdir(path):
                    path.rmdir()
        # git keeps one bit of the permissions.
        for path in [*made.rglob("*"), *wanted.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        self.assert_same_tree(wanted, made)
        for top in (made, wanted):
            self.succeed("rm", "-rf", top)

    def test_patches_apply(self):
        one, two = self.two_states(BEFORE, AFTER)
        self.check_patch(one, two)
        self.check_patch(two, one)

    def test_patch_understands_text(self):
        one, two = self.two_states("seq 1 50 > 'a b'; seq 5 > gone", "sed -i '3d;20,22s/^/x/' 'a b'; rm gone; seq 9 > new")
        made, wanted = self.export(one, "made"), self.export(two, "wanted")
        (self.work / "patch").write_text(self.reprise("diff", "--patch", one, two, status=1))
        self.succeed("patch", "-p1", "-i", self.work / "patch", cwd=made)
        self.assert_same_tree(wanted, made)

    def test_patches_of_random_files_apply(self):
        chance = random.Random(11)

        def content():
            kind = chance.randrange(4)
            if kind == 0:
                return chance.randbytes(chance.randrange(3000))
            lines = [chance.choice([b"a", b"b", b"", b"long line " * 9]) for _ in range(chance.randrange(40))]
            return b"\n".join(lines) + (b"\n" if kind > 1 else b"")

        def edited(data):
            lines = data.split(b"\n")
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(lines) + 1)
                lines[at:at + chance.randrange(3)] = [b"new"] * chance.randrange(3)
            return b"\n".join(lines)

        names = [f"f{i}" for i in range(40)]
        before = {name: content() for name in names}
        after = {name: edited(before[name]) for name in chance.sample(names, 34)} | {f"n{i}": content() for i in range(6)}
        guest = self.guest(self.store)

        def put(files):
            guest.do(f"import os\nfiles = {files!r}\n"
                     "for name in set(os.listdir('.')) - set(files): os.unlink(name)\n"
                     "for name, data in files.items(): open(name, 'wb').write(data)")

        put(before)
        self.reprise("mark", self.store, "before")
        put(after)
        self.assertEqual(guest.end(), 0, guest.errors())
        self.check_patch(f"{self.store}@before", self.store)
        self.check_patch(self.store, f"{self.store}@before")

    def test_what_cannot_be_compared(self):
        self.run_inside(self.store, "echo x > f")
        line = self.refused("diff", self.store, self.work / "nothing", status=3)
        self.assertIn(str(self.work / "nothing"), line)
        self.refused("diff", f"{self.store}:/f", self.store, status=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
