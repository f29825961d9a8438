"""run --from, diff, apply, discard: a session over a directory that stays as it is until it is asked for."""
import os
import pathlib
import shutil
import stat
import subprocess
import time
import unittest

from harness import EndToEnd, execute


def picture(top):
    """Everything that a directory has, and that stat tells of it, but for times of access."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            if stat.S_ISLNK(st.st_mode):
                content = os.readlink(path)
            else:
                content = pathlib.Path(path).read_bytes() if stat.S_ISREG(st.st_mode) else None
            found[os.path.relpath(path, top)] = (st.st_mode, st.st_uid, st.st_ino, st.st_mtime_ns, st.st_ctime_ns, content)
    return found


def contents(top):
    return {path: (entry[0], entry[5]) for path, entry in picture(top).items()}


class Overlay(EndToEnd):
    def setUp(self):
        super().setUp()
        self.state = self.work / "state"
        self.environment = {"XDG_STATE_HOME": str(self.state)}
        self.site = self.work / "site"
        (self.site / "lib/deep").mkdir(parents=True)
        (self.site / "index.php").write_text("<?php echo 1;\n")
        (self.site / "old").write_text("old\n")
        (self.site / "lib/big").write_bytes(bytes(range(256)) * 4096)
        (self.site / "lib/deep/note").write_text("note\n")
        (self.site / "link").symlink_to("index.php")
        (self.site / "empty").touch()
        os.link(self.site / "old", self.site / "old too")
        (self.site / "tool").write_text("#!/bin/sh\n")
        (self.site / "tool").chmod(0o755)

    def over(self, script, *options, status=0):
        """Runs a script over the site; what it printed, and what was said."""
        done = execute([self.program, "run", "--from", self.site, *options, "--", "sh", "-euc", script], env=self.environment)
        self.assertEqual(done.status, status, done)
        return done

    def session(self):
        return self.state / "reprise/site-1"

    def test_what_runs_over_a_directory_sees_it_and_does_not_change_it(self):
        before = picture(self.site)
        done = self.over("""
            pwd; cat index.php link; stat -c %s lib/big; cat lib/deep/note; stat -c %h 'old too'
            echo '<?php echo 2;' > index.php
            printf X | dd of=lib/big bs=1 seek=500000 conv=notrunc status=none
            rm -r lib/deep; mkdir new; echo n > new/file; mv old moved; chmod 600 tool; rm link; ln -s new link""")
        self.assertEqual(done.out, f"{self.site}\n<?php echo 1;\n<?php echo 1;\n1048576\nnote\n2\n")
        self.assertEqual(picture(self.site), before)
        self.assertIn("2 added, 2 deleted, 5 changed", done.err)
        self.assertIn(f"reprise discard {self.session()}", done.err)
        self.assertEqual(self.reprise("diff", self.session(), status=1),
                         "M   index.php\nM   lib/big\nD   lib/deep/\nD   lib/deep/note\nM   link\n"
                         "R   old -> moved\nA   new/\nA   new/file\nP   tool\n")

    def test_apply_brings_all_of_it_there(self):
        self.over("""
            echo '<?php echo 2;' > index.php
            printf X | dd of=lib/big bs=1 seek=500000 conv=notrunc status=none
            rm -r lib/deep; mkdir new; echo n > new/file; ln new/file new/again; mv old moved; chmod 600 tool
            rm link; mkdir link; echo in > link/in; rm empty; touch -d @1000000000 tool""")
        kept = (self.site / "lib").stat().st_ino
        self.reprise("apply", self.session(), "--onto", self.site)
        self.assertEqual((self.site / "index.php").read_text(), "<?php echo 2;\n")
        big = bytearray(bytes(range(256)) * 4096)
        big[500000] = ord("X")
        self.assertEqual((self.site / "lib/big").read_bytes(), bytes(big))
        self.assertEqual(sorted(os.listdir(self.site)), ["index.php", "lib", "link", "moved", "new", "old too", "tool"])
        self.assertEqual(os.listdir(self.site / "lib"), ["big"])
        self.assertEqual((self.site / "new/file").stat().st_ino, (self.site / "new/again").stat().st_ino)
        self.assertEqual((self.site / "moved").read_text(), "old\n")
        self.assertEqual((self.site / "link/in").read_text(), "in\n")
        self.assertEqual((self.site / "tool").stat().st_mode & 0o7777, 0o600)
        self.assertEqual((self.site / "tool").stat().st_mtime, 1000000000)
        self.assertEqual((self.site / "lib").stat().st_ino, kept)
        # Again there is nothing to do, and the overlay still has all it had.
        self.assertIn("nothing to do", self.reprise("apply", self.session(), "--onto", self.site))
        out = self.reprise("run", "--store", self.session(), "--", "sh", "-c", "cat index.php lib/big | md5sum; cat moved")
        self.assertEqual(out.splitlines()[1], "old")
        self.assertEqual(out.split()[0], self.succeed("sh", "-c", f"cat {self.site}/index.php {self.site}/lib/big | md5sum").split()[0])

    def test_apply_refuses_what_changed_on_both_sides_and_names_it(self):
        self.over("echo mine > index.php; rm -r lib; echo x > fresh; chmod 700 tool; rm old; echo same > agreed; rm empty")
        (self.site / "index.php").write_text("theirs\n")
        (self.site / "lib/deep/more").write_text("more\n")
        (self.site / "fresh").write_text("y\n")
        (self.site / "tool").unlink()
        (self.site / "agreed").write_text("same\n")
        (self.site / "empty").unlink()
        before = picture(self.site)
        out = self.reprise("apply", self.session(), "--onto", self.site, status=1)
        self.assertEqual(out.splitlines(), [
            "fresh: added in the overlay and in the directory",
            "index.php: changed in the overlay, changed in the directory",
            "lib/deep: deleted in the overlay, has more in the directory",
            "tool: changed in the overlay, deleted in the directory"])
        self.assertEqual(picture(self.site), before)
        # What is not in the way can be had by itself.
        self.reprise("apply", self.session(), "--onto", self.site, "old", "agreed")
        self.assertFalse((self.site / "old").exists())
        self.assertTrue((self.site / "tool").parent.exists())

    def test_some_paths_only(self):
        self.over("mkdir -p a/b; echo 1 > a/b/one; echo 2 > a/two; echo 3 > index.php")
        self.reprise("apply", self.session(), "--onto", self.site, "a/b/one")
        self.assertEqual(sorted(os.listdir(self.site / "a")), ["b"])
        self.assertEqual((self.site / "index.php").read_text(), "<?php echo 1;\n")
        self.refused("apply", self.session(), "--onto", self.site, "nowhere", status=3)
        self.refused("apply", self.session(), "--onto", self.work, status=2)
        self.reprise("apply", self.session(), "--onto", self.site)
        self.assertEqual((self.site / "a/two").read_text(), "2\n")

    def test_a_file_that_changes_underneath_is_an_error_and_never_other_bytes(self):
        leader = self.guest(self.work / "S", "--from", self.site)
        self.assertEqual(leader.sh("cat index.php"), "<?php echo 1;\n")
        (self.site / "lib/deep/note").write_text("other\n")
        (self.site / "index.php").write_text("<?php echo 9;\n")
        self.assertEqual(leader.sh("cat lib/deep/note 2>&1 || true"), "cat: lib/deep/note: Input/output error\n")
        # What the kernel has of the session's file is what it was.
        self.assertEqual(leader.sh("cat index.php"), "<?php echo 1;\n")
        failed = self.stat(self.work / "S")["rests_on"]["failed"]
        self.assertEqual([entry["path"] for entry in failed], ["lib/deep/note"])
        self.assertIn("expected the file as it was recorded", failed[0]["why"])
        leader.sh("echo new > lib/deep/note")
        self.assertEqual(leader.sh("cat lib/deep/note"), "new\n")
        leader.sh("echo after > zzz")
        leader.end()
        # What cannot be shown of one file keeps nothing back of the others.
        patch = execute([self.program, "diff", self.work / "S", "--patch"])
        self.assertEqual(patch.status, 3, patch)
        self.assertIn("+after\n", patch.out)
        self.assertRegex(patch.out, r"(?m)^# M +lib/deep/note: .*cannot be had")
        self.assertIn("lib/deep/note: its bytes cannot be had any more", patch.err)

    def test_many_over_one_directory_each_with_its_own(self):
        one = self.guest(self.work / "A", "--from", self.site)
        two = self.guest(self.work / "B", "--from", self.site)
        before = picture(self.site)
        one.sh("echo one > index.php")
        two.sh("echo two > index.php; rm -r lib")
        self.assertEqual(one.sh("cat index.php; cat lib/deep/note"), "one\nnote\n")
        self.assertEqual(two.sh("cat index.php; ls lib 2>&1 || true"), "two\nls: cannot access 'lib': No such file or directory\n")
        one.end()
        two.end()
        self.assertEqual(picture(self.site), before)
        self.reprise("apply", self.work / "A", "--onto", self.site)
        self.reprise("apply", self.work / "B", "--onto", self.site, status=1)

    def test_a_session_that_is_killed_goes_on_where_it_was(self):
        leader = self.guest(self.work / "S", "--from", self.site)
        leader.sh("printf Y | dd of=lib/big bs=1 seek=70000 conv=notrunc,fsync status=none; rm old; sync -f .; sync lib/big")
        leader.kill()
        out = self.reprise("run", "--store", self.work / "S", "--", "sh", "-c", "pwd; md5sum < lib/big; ls")
        big = bytearray(bytes(range(256)) * 4096)
        big[70000] = ord("Y")
        import hashlib
        self.assertEqual(out.split()[:2], [str(self.site), hashlib.md5(bytes(big)).hexdigest()])
        self.assertNotIn("old\n", out)

    def test_nothing_changed_leaves_nothing(self):
        done = self.over("cat index.php > /dev/null")
        self.assertIn("nothing changed", done.err)
        self.assertEqual(os.listdir(self.state / "reprise"), [])

    def test_discard_takes_it_away(self):
        before = picture(self.site)
        self.over("echo mine > index.php")
        self.reprise("discard", self.session())
        self.assertEqual(os.listdir(self.state / "reprise"), [])
        self.assertEqual(picture(self.site), before)
        self.run_inside(self.work / "plain", "true")
        self.refused("discard", self.work / "plain", status=2)
        self.refused("diff", self.work / "plain", status=2)

    def test_what_cannot_be(self):
        self.refused("run", "--from", self.work / "none", "--", "true", status=125, env=self.environment)
        self.refused("run", "--from", self.site / "index.php", "--", "true", status=125, env=self.environment)
        self.refused("run", "--from", self.site, "--store", self.site / "S", "--", "true", status=125)
        self.refused("run", "--from", self.site, "--listen", f"unix:{self.work}/s", "--", "true", status=125, env=self.environment)
        self.refused("run", "--", "true", status=125)
        self.over("true", "--store", self.work / "S")
        other = self.work / "other"
        other.mkdir()
        self.refused("run", "--from", other, "--store", self.work / "S", "--", "true", status=125)
        self.refused("mount", self.work / "S", other, "--listen", f"unix:{self.work}/s", status=3)
        self.assertEqual(os.listdir(self.state / "reprise") if (self.state / "reprise").exists() else [], [])

    def test_the_directory_may_be_exported_and_compared(self):
        self.over("echo mine > index.php", "--store", self.work / "S")
        self.reprise("snapshot", "export", self.work / "S", self.work / "out")
        expected = contents(self.site)
        got = contents(self.work / "out")
        self.assertEqual(got.pop("index.php")[1], b"mine\n")
        expected.pop("index.php")
        self.assertEqual(got, expected)
        self.assertEqual(self.reprise("cat", f"{self.work}/S:/lib/deep/note"), "note\n")
        self.assertIn("-<?php echo 1;\n+mine\n", self.reprise("diff", self.work / "S", "--patch", status=1))
        self.assertIn("1 changed", self.reprise("diff", self.work / "S", "--stat", status=1))


if __name__ == "__main__":
    unittest.main()
