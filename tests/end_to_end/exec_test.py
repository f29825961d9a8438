"""`reprise exec`: other guests in a live instance, as root and not."""
import subprocess
import unittest

from harness import EndToEnd, execute


class Exec(EndToEnd):
    environment, user = {}, {}

    def setUp(self):
        super().setUp()
        self.store = self.work / "S"

    def exec(self, *command, status=0):
        done = execute([self.program, "exec", self.store, "--", *command], env=self.environment, **self.user)
        self.assertEqual(done.status, status, done)
        return done

    def test_guests_share_the_instance(self):
        guest = self.guest(self.store, env=self.environment, **self.user)
        guest.sh("echo from run > file; mkdir d")
        out = self.exec("sh", "-c", "cat file; echo from exec > d/new; pwd; echo $REPRISE_STORE").out
        self.assertEqual(out, f"from run\n{self.store}/mnt\n{self.store}\n")
        self.assertEqual(guest.sh("cat d/new"), "from exec\n")
        self.exec("sh", "-c", "exit 7", status=7)
        # They lock each other out, as guests of one mount.
        guest.do("import fcntl; held = open('file'); fcntl.flock(held, fcntl.LOCK_EX)")
        self.exec("flock", "-n", "file", "true", status=1)
        guest.do("held.close()")
        self.exec("flock", "-n", "file", "true")
        self.assertEqual(guest.end(), 0, guest.errors())
        listing = execute([self.program, "cat", f"{self.store}:/d/new"], env=self.environment, **self.user)
        self.assertEqual(listing.out, "from exec\n", listing)

    def test_a_guest_left_behind_is_told_when_the_instance_ends(self):
        guest = self.guest(self.store, env=self.environment, **self.user)
        program = "import os, time\nprint('in', flush=True)\nwhile True:\n    time.sleep(0.01)\n    open('f', 'w').close()"
        left = subprocess.Popen([self.program, "exec", self.store, "--", self.python, "-c", program], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env={**self.environment, "PATH": "/usr/bin:/bin"}, **self.user)
        self.assertEqual(left.stdout.readline(), b"in\n")
        self.assertEqual(guest.end(), 0, guest.errors())
        _, err = left.communicate(timeout=60)
        self.assertEqual(left.returncode, 1)
        # ECONNABORTED in the middle of a call, ENOTCONN from then on.
        self.assertRegex(err, b"Transport endpoint is not connected|Software caused connection abort")

    def test_what_cannot_be_entered(self):
        def refused(status, *words):
            done = execute([self.program, "exec", *words], env=self.environment, **self.user)
            self.assertEqual(done.status, status, done)
            self.assertRegex(done.err, r"\Areprise: [^\n]+\n\Z")
            return done.err

        self.assertIn("expected a store", refused(125, self.store, "--", "true"))
        guest = self.guest(self.store, env=self.environment, **self.user)
        self.assertIn("no-such-command", refused(127, self.store, "--", "no-such-command"))
        self.assertIn("/etc/passwd", refused(126, self.store, "--", "/etc/passwd"))
        self.assertIn("branch", refused(125, f"{self.store}:other", "--", "true"))
        self.assertEqual(guest.end(), 0, guest.errors())
        self.assertIn("is not live", refused(125, self.store, "--", "true"))


class ExecUnprivileged(Exec):
    def setUp(self):
        super().setUp()
        self.give_up_root()
        self.store = self.work / "S"


if __name__ == "__main__":
    unittest.main(verbosity=2)
