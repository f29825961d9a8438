"""fork, join, discard: programs that work on a branch while others go on in the one it came from."""
import itertools
import os
import shutil
import signal
import subprocess
import unittest

from harness import EndToEnd, execute

LIBRARY = os.environ["FAILING_DISK_LIBRARY"]
LONG = "KILLS" in os.environ  # as in crash_test.py: before each change of the disk, not each third

# A PHP that has a script run by a child PHP on a branch, and takes over what it did if it ended well.
PARENT = r"""<?php
function on_a_branch(string $code): int {
    $store = getenv('REPRISE_STORE'); $reprise = getenv('REPRISE');
    $name = 'child' . bin2hex(random_bytes(4));
    exec("$reprise fork $store $name", $out, $status);
    if ($status !== 0) return $status;
    $child = proc_open([$reprise, 'run', '--store', "$store:$name", '--', 'php', '-r', $code],
                       [STDIN, STDOUT, STDERR], $pipes);
    $status = proc_close($child);
    exec("$reprise " . ($status === 0 ? 'join' : 'discard') . " $store $name", $out, $joined);
    return $status !== 0 ? $status : $joined;
}
$db = new PDO('sqlite:site.db');
$db->exec('create table posts(title); insert into posts values ("first")');
unset($db);
$good = '$db = new PDO("sqlite:site.db"); $db->exec("insert into posts values (\"by the child\")"); mkdir("upgraded");';
$bad = '$db = new PDO("sqlite:site.db"); $db->exec("delete from posts"); unlink("site.db"); exit(9);';
echo on_a_branch($good), ' ', on_a_branch($bad), ' ';
$db = new PDO('sqlite:site.db');
echo implode(', ', $db->query('select title from posts')->fetchAll(PDO::FETCH_COLUMN)), ' ', is_dir('upgraded') ? 'upgraded' : 'not';
"""


class Branches(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store = self.work / "S"

    def branches(self, store=None):
        return [branch["name"] for branch in self.reprise_json("branches", store or self.store)]

    def join_all(self, *names):
        for name in names:
            self.reprise("join", self.store, name)

    def test_a_child_php_whose_work_the_parent_takes_over_or_not(self):
        leader = self.guest(self.store, "--listen", f"unix:{self.work}/s")
        follower = self.guest(self.work / "F", "--follow", f"unix:{self.work}/s")
        overwrites = self.stat(self.work / "F")["follow"]["overwrites"]
        (self.work / "parent.php").write_text(PARENT)
        leader.do(f"import os; os.environ['REPRISE'] = {self.program!r}")
        out = leader.sh(f"php {self.work}/parent.php")
        self.assertEqual(out, "0 9 first, by the child upgraded")
        self.assertEqual(self.branches(), ["main"])
        leader.sh(f"{self.program} mark {self.store} done")
        self.reprise("wait-for", self.work / "F", "done")
        self.assertEqual(follower.sh("sqlite3 site.db 'select count(*) from posts'; ls"), "2\nsite.db\nupgraded\n")
        self.assert_in_step(self.store, self.work / "F")
        follow = self.stat(self.work / "F")["follow"]
        self.assertEqual((follow["overwrites"], follow.get("last_resync")), (overwrites, None), follow)
        for guest in (follower, leader):
            self.assertEqual(guest.end(), 0, guest.errors())
        self.assertIn("[join child", self.reprise("log", self.store))
        self.reprise("verify", self.store)

    def test_cached_reads_are_of_the_joined_tree(self):
        guest = self.guest(self.store)
        guest.sh("mkdir d; for i in 1 2 3; do echo old > d/$i; done; cat d/1 d/2 d/3; ls d")
        guest.do("held = open('d/1'); import mmap; mapped = mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ)")
        self.reprise("fork", self.store, "try")
        self.run_inside(f"{self.store}:try", "echo new > d/1; rm d/2; mv d/3 d/4; echo 5 > d/5")
        self.assertEqual(guest.sh("cat d/1 d/2"), "old\nold\n")
        self.reprise("join", self.store, "try")
        self.assertEqual(guest.sh("cat d/1; ls d"), "new\n1\n4\n5\n")
        self.assertEqual(guest.do("result = [mapped[:].decode(), held.read()]"), ["new\n", "new\n"])
        self.assertEqual(guest.end(), 0, guest.errors())

    def test_what_both_changed(self):
        self.run_inside(self.store, "echo 1 > both; echo 1 > 'odd\n'")
        self.reprise("fork", self.store, "try")
        self.run_inside(f"{self.store}:try", "echo 2 > both; echo 2 > 'odd\n'")
        self.run_inside(self.store, "echo 3 >> both; rm 'odd\n'")
        before = self.digests(self.store)
        done = execute([self.program, "join", self.store, "try"])
        self.assertEqual(done.status, 1, done)
        self.assertEqual(done.out, "/both: both changed it\n/odd\\x0a: removed here, changed in the branch\n")
        self.assertRegex(done.err, r"\Areprise: try was not joined: [^\n]+\n\Z")
        self.assertEqual(self.digests(self.store), before)
        self.assertEqual(self.reprise("cat", f"{self.store}:try:/both"), "2\n")
        self.reprise("discard", self.store, "try")
        self.assertEqual(self.branches(), ["main"])
        self.assertEqual(os.listdir(self.store / "branches"), ["main"])
        self.refused("join", self.store, "try", status=3)

    def test_children_of_one_live_parent_at_once(self):
        guest = self.guest(self.store)
        guest.sh("for i in $(seq 50); do mkdir $i; done")
        names = [f"c.{i + 1}" for i in range(50)]
        self.reprise("fork", self.store, "c", "--count", "50")
        children = [subprocess.Popen([self.program, "run", "--store", f"{self.store}:{name}", "--", "sh", "-ec",
                                      f"echo {name} > {name[2:]}/file"]) for name in names]
        guest.sh("for i in $(seq 100); do echo $i > own$i; done")
        self.assertEqual([child.wait(120) for child in children], [0] * 50)
        self.join_all(*names)
        self.assertEqual(guest.sh("cat */file | sort | md5sum; ls | wc -l"),
                         self.succeed("sh", "-c", "for i in $(seq 50); do echo c.$i; done | sort | md5sum; echo 150"))
        self.assertEqual(guest.end(), 0, guest.errors())
        self.assertEqual(self.branches(), ["main"])

    def test_a_killed_child_is_no_concern_of_the_parents(self):
        guest = self.guest(self.store)
        guest.sh("echo 1 > file")
        self.reprise("fork", self.store, "try")
        child = self.guest(f"{self.store}:try")
        child.sh("echo 2 > file; sync file")
        child.kill()
        self.refused("join", self.store, "try", status=2)
        self.assertEqual(guest.sh("cat file"), "1\n")
        self.run_inside(f"{self.store}:try", "cat file")
        self.reprise("join", self.store, "try")
        self.assertEqual(guest.sh("cat file"), "2\n")
        self.assertEqual(guest.end(), 0, guest.errors())

    def kill_while(self, guest, seconds, *words):
        """Kills the live instance so long after the command has begun to ask it; the command's status."""
        asking = subprocess.Popen([self.program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            asking.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        guest.kill(signal.SIGKILL)
        return asking.wait(60)

    def test_a_parent_killed_while_it_joins_has_all_of_it_or_nothing(self):
        self.run_inside(self.store, "mkdir d; echo none > n")
        finished = 0
        for attempt in range(12):
            name = f"t{attempt}"
            guest = self.guest(self.store)
            self.reprise("fork", self.store, name)
            self.run_inside(f"{self.store}:{name}",
                            f"echo {attempt} > n; for i in $(seq 300); do echo {attempt} > d/$i; done")
            self.kill_while(guest, 0.002 * attempt, "join", self.store, name)
            found = self.run_inside(self.store, "cat n; cat d/* 2>/dev/null | sort -u; ls d | wc -l").split()
            there = found[0] == str(attempt)
            finished += there
            if there:
                self.assertEqual(found, [str(attempt), str(attempt), "300"])
                self.assertNotIn(name, self.branches())
            else:
                self.assertNotIn(str(attempt), found[:-1])
                self.reprise("discard", self.store, name)
            self.reprise("verify", self.store)
        self.assertGreater(finished, 0)

    def test_what_both_changed_is_resolved_on_request(self):
        self.run_inside(self.store, "mkdir d s; for f in both gone moved linked kind; do echo 0 > $f; done; echo 0 > d/x")
        ours = ("echo ours > both; rm gone; mv moved m-ours; ln linked l-ours; rm kind; mkdir kind; echo ours > d/x; "
                "echo 1 > only-ours; echo ours > new")
        theirs = ("echo theirs > both; echo theirs > gone; mv moved m-theirs; ln linked l-theirs; echo theirs > kind; rm -r d; "
                  "echo 2 > only-theirs; echo theirs > new; echo 3 > s/free")
        listing = ("find . -mindepth 1 | sort | tr '\\n' ' '; cat both new; cat only-ours only-theirs s/free; "
                   "stat -c %h linked")
        expected = {
            "ours": "./both ./d ./d/x ./kind ./l-ours ./linked ./m-ours ./new ./only-ours ./only-theirs ./s ./s/free "
                    "ours\nours\n1\n2\n3\n2\n",
            "theirs": "./both ./gone ./kind ./l-theirs ./linked ./m-theirs ./new ./only-ours ./only-theirs ./s ./s/free "
                      "theirs\ntheirs\n1\n2\n3\n2\n"}
        for winner, live in (("ours", False), ("theirs", True)):
            store = self.work / winner
            self.reprise("fork", self.store, winner)
            self.succeed("cp", "-a", self.store, store)
            self.reprise("discard", self.store, winner)
            self.run_inside(f"{store}:{winner}", theirs)
            self.run_inside(store, ours)
            refused = execute([self.program, "join", store, winner])
            self.assertEqual(refused.status, 1, refused)
            options = ("--listen", f"unix:{self.work}/{winner}.s") if live else ()
            leader = self.guest(store, *options) if live else None
            follower = self.guest(self.work / "F", "--follow", f"unix:{self.work}/{winner}.s") if live else None
            joined = self.reprise_json("join", store, winner, "--resolve", winner)
            self.assertEqual(joined["resolved"], winner)
            said = "".join(f"{one['path']}: {one['what']}\n" for one in joined["conflicts"])
            self.assertEqual(said, refused.out)
            self.assertIn("/m-theirs" if winner == "ours" else "/m-ours", [one["path"] for one in joined["left_out"]])
            self.assertEqual(leader.sh(listing) if live else self.run_inside(store, listing), expected[winner])
            if live:
                self.reprise("mark", store, "done")
                self.reprise("wait-for", self.work / "F", "done")
                self.assert_in_step(store, self.work / "F")
                self.assertEqual([follower.end(), leader.end()], [0, 0])
            # What was left out is on the branch, or in what the parent had before.
            self.assertEqual(sorted(self.branches(store)), sorted(["main", winner]))
            self.assertEqual(self.reprise("cat", f"{store}:{winner}:/both"), "theirs\n")
            self.reprise("discard", store, winner)
            self.reprise("verify", store)
        self.refused("join", self.store, "any", "--resolve", "both", status=2)

    def content(self, store):
        return self.reprise_json("digest", store)["content"]

    def assert_all_or_nothing(self, made, *command):
        """Kills the command before calls that change something on the disk: the branch is as before or as wanted."""
        wanted = self.work / "wanted"
        shutil.copytree(made, wanted)
        self.reprise(*[word.replace("STORE", str(wanted)) for word in command])
        old, new = self.content(made), self.content(wanted)
        self.assertNotEqual(old, new)
        found, branches = [], self.branches(made)
        for at in itertools.count(1, 1 if LONG else 3):
            store = self.work / f"killed-{at}"
            shutil.copytree(made, store)
            words = [word.replace("STORE", str(store)) for word in command]
            killed = execute([self.program, *words], env={
                "LD_PRELOAD": LIBRARY, "FAILING_DISK": str(store), "FAILING_DISK_KILL": str(at)})
            self.assertIn(killed.status, (0, -signal.SIGKILL), killed)
            with self.subTest(at=at):
                # To who reads only, and once it was opened for writing.
                seen = self.content(store)
                self.reprise("mark", store, "opened")
                found.append(self.content(store))
                self.assertIn(found[-1], (old, new))
                self.assertIn(seen, (old, found[-1]))
                for name in set(self.branches(store)) - set(branches):
                    self.reprise("discard", store, name)
                self.assertEqual(self.branches(store), branches)
                self.reprise("verify", store)
                if found[-1] == old:
                    self.reprise(*words)
                    self.assertEqual(self.content(store), new)
            shutil.rmtree(store)
            if killed.status == 0:
                break
        # First old, then new. How many calls come before the moment in between is not quite the same each time, since there
        # are threads: so each run beside it may be either.
        first_new, last_old = found.index(new), len(found) - 1 - found[::-1].index(old)
        self.assertLess(last_old - first_new, 3, found)
        self.assertGreater(found.count(old), 10)
        self.assertGreater(found.count(new), 1)  # killed, and there all the same

    def test_a_join_that_decides_is_killed_before_changes_of_the_disk(self):
        self.run_inside(self.store, "mkdir d; echo 0 > d/both; echo 0 > gone; mkdir moved")
        self.reprise("fork", self.store, "t")
        self.run_inside(f"{self.store}:t", "echo theirs > d/both; rm gone; mv moved m-theirs; echo 1 > d/new")
        self.run_inside(self.store, "echo ours > d/both; echo ours > gone; mv moved m-ours; echo 2 > more")
        for winner in ("ours", "theirs"):
            with self.subTest(winner=winner):
                self.assert_all_or_nothing(self.store, "join", "STORE", "t", "--resolve", winner)
                shutil.rmtree(self.work / "wanted")

    def test_a_reset_is_killed_before_changes_of_the_disk(self):
        # More than fits one batch.
        self.run_inside(self.store, "mkdir d; echo 1 > d/f; echo 1 > gone; head -c 9000000 /dev/urandom > large")
        self.reprise("mark", self.store, "then")
        self.run_inside(self.store, "rm large; echo 2 > d/f; rm gone; mv d e; mkdir d; echo 2 > d/new")
        self.assert_all_or_nothing(self.store, "reset", "STORE@then")

    def test_a_live_parent_killed_while_it_resolves_is_the_one_or_the_other(self):
        self.run_inside(self.store, "mkdir d; for i in $(seq 300); do echo 0 > d/$i; done")
        for attempt in range(8):
            name = f"t{attempt}"
            self.reprise("fork", self.store, name)
            self.run_inside(f"{self.store}:{name}", f"for i in $(seq 300); do echo theirs {attempt} > d/$i; done")
            self.run_inside(self.store, f"for i in $(seq 300); do echo ours {attempt} > d/$i; done")
            guest = self.guest(self.store)
            answered = self.kill_while(guest, 0.02 * attempt, "join", self.store, name, "--resolve", "theirs")
            found = self.run_inside(self.store, "sort -u d/*; ls d | wc -l")
            self.assertIn(found, (f"ours {attempt}\n300\n", f"theirs {attempt}\n300\n"))
            if answered == 0:
                self.assertEqual(found[0], "t")
            self.assertIn(name, self.branches())
            for branch in self.branches():
                if branch != "main":
                    self.reprise("discard", self.store, branch)
            self.reprise("verify", self.store)

    def test_a_stopped_store_is_reset_to_a_mark_and_back(self):
        self.run_inside(self.store, "mkdir d; echo 1 > d/f; ln d/f g; ln -s d/f l; chmod 640 d/f")
        self.reprise("mark", self.store, "good")
        was = self.reprise_json("digest", f"{self.store}@good")["content"]
        self.run_inside(self.store, "echo 2 > d/f; rm g l; mv d e; touch new")
        left = self.reprise_json("digest", self.store)["content"]
        done = self.reprise_json("reset", f"{self.store}@good", "--keep", "bad")
        self.assertEqual(self.reprise_json("digest", self.store)["content"], was)
        self.assertEqual(self.reprise_json("digest", f"{self.store}:bad")["content"], left)
        self.assertEqual(self.reprise_json("digest", f"{self.store}@{done['before']}")["content"], left)
        self.assertEqual(self.run_inside(self.store, "cat g l; stat -c '%a %h' d/f"), "1\n1\n640 2\n")
        self.assertIn(f"what it was is {self.store}@", self.reprise("reset", self.store, "--to", "bad"))
        self.assertEqual(self.reprise_json("digest", self.store)["content"], left)
        self.assertEqual(self.reprise("reset", self.store, "--to", "main").split()[-1], "already")
        self.reprise("verify", self.store)

    def test_a_live_instance_is_reset_under_its_guests_and_followers(self):
        leader = self.guest(self.store, "--listen", f"unix:{self.work}/s")
        follower = self.guest(self.work / "F", "--follow", f"unix:{self.work}/s")
        leader.sh("mkdir d; for i in 1 2 3; do echo old > d/$i; done")
        self.reprise("mark", self.store, "old")
        leader.sh("for i in 1 2; do echo new > d/$i; done; rm d/3; mkdir more; cat d/*")
        leader.do("held = open('d/1')")
        self.reprise("reset", f"{self.store}@old")
        self.assertEqual(leader.sh("cat d/*; ls"), "old\nold\nold\nd\n")
        self.assertEqual(leader.do("result = held.read()"), "old\n")
        self.reprise("mark", self.store, "done")
        self.reprise("wait-for", self.work / "F", "done")
        self.assertEqual(follower.sh("cat d/*; ls"), "old\nold\nold\nd\n")
        self.assert_in_step(self.store, self.work / "F")
        self.assertIn("follows another", self.refused("reset", f"{self.work / 'F'}@old", status=3))
        for guest in (follower, leader):
            self.assertEqual(guest.end(), 0, guest.errors())
        self.assertIn("[reset to main@", self.reprise("log", self.store))

    def test_a_live_instance_killed_while_it_is_reset_is_the_one_or_the_other(self):
        self.run_inside(self.store, "mkdir d; for i in $(seq 300); do echo 1 > d/$i; done")
        self.reprise("mark", self.store, "one")
        self.run_inside(self.store, "rm -r d; mkdir d e; for i in $(seq 300); do echo 2 > e/$i; done")
        self.reprise("mark", self.store, "two")
        content = {name: self.content(f"{self.store}@{name}") for name in ("one", "two")}
        now = "two"
        for attempt in range(8):
            wanted = "one" if now == "two" else "two"
            guest = self.guest(self.store)
            answered = self.kill_while(guest, 0.02 * attempt, "reset", f"{self.store}@{wanted}")
            self.run_inside(self.store, "true")
            found = self.content(self.store)
            self.assertIn(found, content.values())
            if answered == 0:
                self.assertEqual(found, content[wanted])
            now = "one" if found == content["one"] else "two"
            for name in self.branches():
                if name != "main":
                    self.reprise("discard", self.store, name)
            self.reprise("verify", self.store)

    def test_what_reset_does_not_take(self):
        self.run_inside(self.store, "echo 1 > f")
        last = self.reprise("log", self.store)
        self.refused("reset", self.store, status=2)
        self.refused("reset", f"{self.store}@1", "--to", "main", status=2)
        self.refused("reset", f"{self.store}:/f", status=2)
        self.refused("reset", self.store, "--to", "main@", status=2)
        self.refused("reset", self.store, "--to", "nope", status=3)
        self.refused("reset", f"{self.store}@never", status=3)
        self.refused("reset", f"{self.store}@1", "--keep", "main", status=3)
        self.refused("reset", f"{self.store}@1", "--keep", "no/name", status=2)
        self.assertEqual(self.reprise("log", self.store), last)
        self.assertEqual(self.branches(), ["main"])


if __name__ == "__main__":
    unittest.main()
