"""Has programs do the same on a plain directory and in an instance, and compares all there is to compare.

Both have one and the same path, since programs write paths into what they make.
"""
from harness import EndToEnd

# What programs print and write must not depend on when and where they run.
ENVIRONMENT = {
    "LC_ALL": "C", "TZ": "UTC", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
}


class Comparison(EndToEnd):
    def setUp(self):
        super().setUp()
        self.environment = dict(ENVIRONMENT)

    def check(self, script, *, differs=()):
        """The script on a plain directory and in an instance; then what the journal gives. `differs`: files not to compare
        with the plain directory's, because they hold inode numbers and times."""
        place, plain, store, out, live_out = (self.work / name for name in ("place", "plain", "S", "out", "live"))
        place.mkdir()
        expected = self.succeed("sh", "-euc", script, cwd=place, env=self.environment)
        self.assertNotEqual(expected, "")
        place.rename(plain)
        place.mkdir()

        live = self.guest(store, "--at", place, "--label", "workload", env=self.environment)
        self.assertEqual(live.do("import os\nresult = os.getcwd()"), str(place))
        self.assertEqual(live.sh(script), expected)
        self.assert_same_tree(plain, ".", *differs, inside=live)

        # The live one, its journal replayed beside it, and what the mount shows.
        content = self.reprise("digest", "--content", store)
        self.reprise("replay", store, "--onto", live_out)
        self.assert_same_tree(live_out, ".", "fifo", inside=live)  # diff takes no two pipes for equal
        self.assertEqual(self.reprise("digest", "--content", live_out), content)
        self.assertEqual(live.sh(f"{self.program} digest --content dir:."), content)
        self.assertEqual(live.end(), 0, live.errors())

        self.assertEqual(self.reprise("digest", "--content", store), content)
        self.reprise("replay", store, "--onto", out)
        self.assertEqual(self.reprise("digest", "--content", out), content)
        self.assert_same_tree(plain, out, *differs)
        self.reprise("verify", store)
        # And the digest does tell trees apart.
        (out / "one more").touch()
        self.assertNotEqual(self.reprise("digest", "--content", out), content)
