"""Instances of a user who is not root: in a user namespace of their own, everything shows as theirs and is journaled as 0:0."""
import os
import pathlib
import unittest

from harness import EndToEnd, execute


class Unprivileged(EndToEnd):
    """Whoever runs the tests; root becomes nobody."""

    def setUp(self):
        super().setUp()
        self.give_up_root()

    def run_unprivileged(self, store, script, *options):
        done = execute([self.program, "run", "--store", store, *options, "--", "sh", "-euc", script], env=self.environment, **self.user)
        self.assertEqual(done.status, 0, done)
        return done.out

    def test_what_is_made_is_the_users_and_journaled_as_roots(self):
        store = self.work / "S"
        shown = self.run_unprivileged(store, r"""
            id -u; id -g
            echo text > file; mkdir -m 750 d; ln -s file link; chmod 640 file; mkfifo fifo
            stat -c '%u %g %a %n' . file d link fifo
            chown $(id -u):$(id -g) file && echo own
            chown 0 file 2>/dev/null || echo not others
            python3 -c 'import sqlite3; db = sqlite3.connect("db"); db.execute("CREATE TABLE t (a)"); db.commit()'
            git init -q repository && cd repository && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git fsck
            """)
        u = f"{self.uid} {self.gid}"
        self.assertEqual(shown.splitlines(), [str(self.uid), str(self.gid), f"{u} 755 .", f"{u} 640 file", f"{u} 750 d",
                                              f"{u} 777 link", f"{u} 644 fifo", "own", "not others"])
        for line in self.reprise("ls", "-l", store).splitlines():
            self.assertEqual(line.split()[2:4], ["0", "0"], line)
        # Reads as the user's again, and is the user's own on the disk.
        self.assertEqual(self.run_unprivileged(store, "cat file; stat -c '%u %a' file; echo more >> file; rm fifo; cat file"),
                         f"text\n{self.uid} 640\ntext\nmore\n")
        owners = {path.lstat().st_uid for path in store.rglob("*")}
        self.assertEqual(owners, {self.uid})
        self.reprise("verify", store)
        out = self.work / "out"
        self.reprise("replay", store, "--onto", out)
        self.assertEqual(self.reprise("digest", "--content", store), self.reprise("digest", "--content", out))

    def test_a_follower(self):
        a, b = self.work / "A", self.work / "B"
        leader = self.guest(a, "--listen", f"unix:{self.work}/s", env=self.environment, **self.user)
        follower = self.guest(b, "--follow", f"unix:{self.work}/s", env=self.environment, **self.user)
        leader.sh("echo one > file; mkdir d")
        self.reprise("mark", a, "made")
        self.reprise("wait-for", b, "made")
        self.assertEqual(follower.sh("cat file; stat -c '%u %g' file d"), "one\n" + f"{self.uid} {self.gid}\n" * 2)
        leader.sh("echo two >> file; mv d e")
        self.reprise("mark", a, "changed")
        self.reprise("wait-for", b, "changed")
        self.assertEqual(follower.sh("cat file; ls"), "one\ntwo\ne\nfile\n")
        self.assertEqual(follower.do("import os\ntry: open('file', 'a'); result = 0\nexcept OSError as e: result = e.errno"), 30)
        self.assert_in_step(a, b)
        self.assertEqual(follower.end(), 0, follower.errors())
        self.assertEqual(leader.end(), 0, leader.errors())
        self.assert_in_step(a, b)

    def test_nobody_else_sees_the_mount(self):
        guest = self.guest(self.work / "S", env=self.environment, **self.user)
        guest.sh("echo secret > file")
        self.assertEqual(os.listdir(self.work / "S/mnt"), [])
        self.assertNotIn(str(self.work), pathlib.Path("/proc/self/mountinfo").read_text())

    def test_what_root_recorded_shows_as_the_users(self):
        if os.getuid() != 0:
            return  # there is no root to record anything
        store = self.work / "S"
        self.run_inside(store, "echo x > file; chown 12:34 file; chmod 666 file; mkdir d; chmod 777 . d")
        self.succeed("chown", "-R", f"{self.uid}:{self.gid}", store)
        self.assertEqual(self.run_unprivileged(store, "stat -c '%u %g' file d; echo more >> file; echo new > d/new; rm file"),
                         f"{self.uid} {self.gid}\n" * 2)
        self.assertEqual(self.reprise("ls", "-l", f"{store}:/d").split()[2:4], ["0", "0"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
