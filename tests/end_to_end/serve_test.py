"""`serve`, and what is asked of an instance that others follow: flush, wait-for, stat."""
import json
import pathlib
import re
import signal
import subprocess
import time
import unittest

from harness import REPRISE, TIMEOUT_S, EndToEnd


class Serve(EndToEnd):
    def setUp(self):
        super().setUp()
        self.a, self.b, self.c = (self.work / name for name in "ABC")
        self.served = []
        self.addCleanup(self.end_all)

    def end_all(self):
        for process in self.served:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def endpoint(self, store):
        return f"unix:{store}.sock"

    def serve(self, store, *options, listen=True):
        """A `reprise serve` that is ready."""
        listening = ["--listen", self.endpoint(store)] if listen else []
        process = subprocess.Popen([REPRISE, "serve", str(store), *listening, *map(str, options)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.served.append(process)
        line = process.stdout.readline()
        self.assertIn("is served", line, line or process.communicate(timeout=TIMEOUT_S))
        return process

    def end(self, process, number=signal.SIGTERM, status=0):
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, status, err)
        return err

    def stop(self, process):
        """Returns when all its threads stand still."""
        process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{process.pid}/task")
        self.eventually(lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()))

    def leader(self, *options):
        return self.guest(self.a, "--listen", self.endpoint(self.a), *options)

    def eventually(self, holds):
        deadline = time.monotonic() + 20
        while not holds() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertTrue(holds())

    def test_a_stopped_leaders_store_is_served(self):
        self.run_inside(self.a, "echo one > file; mkdir dir; echo two > dir/other")
        served = self.serve(self.a)
        follower = self.guest(self.b, "--follow", self.endpoint(self.a))
        self.assertEqual(follower.sh("cat file dir/other"), "one\ntwo\n")
        self.assertEqual(self.stat(self.a)["role"], "leader")
        # Who only serves has no mount to enter, and can be asked all the same.
        self.assertIn("mounted nowhere", self.refused("exec", self.a, "--", "true", status=125))
        self.reprise("mark", self.a, "here")
        self.reprise("wait-for", self.b, "here")
        self.assertEqual(self.end(served), "")
        self.assertEqual(follower.end(), 0)
        self.assert_in_step(self.a, self.b)

    def test_relays_in_a_chain(self):
        leader = self.leader()
        self.serve(self.b, "--follow", self.endpoint(self.a))
        last = self.guest(self.c, "--follow", self.endpoint(self.b))
        leader.do("open('file', 'w').write('x' * 100_000)")
        self.reprise("mark", self.a, "here")
        self.reprise("wait-for", self.c, "here")
        self.assertEqual(last.do("import os\nresult = os.stat('file').st_size"), 100_000)
        self.assert_in_step(self.a, self.b, self.c)
        # A relay that comes back.
        self.end(self.served[0], signal.SIGINT)
        leader.do("open('meanwhile', 'w').write('yes')")
        self.serve(self.b, "--follow", self.endpoint(self.a))
        token = self.stat(self.a)["position"]
        self.reprise("wait-for", self.c, token)
        self.assertEqual(last.sh("cat meanwhile"), "yes")

    def test_how_serving_ends(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            served = self.serve(self.a)
            begin = time.monotonic()
            self.assertEqual(self.end(served, number), "")
            self.assertLess(time.monotonic() - begin, 5)
        self.reprise("verify", self.a)
        self.assertFalse((self.work / "A.sock").exists())
        served = self.serve(self.a, listen=False)
        self.assertIn("live", self.refused("serve", self.a, status=3))
        self.end(served)
        self.refused("serve", self.a, "--listen", "nowhere", status=2)
        said = self.refused("serve", self.a, "--listen", "tcp:0.0.0.0:9", status=2)
        self.assertEqual(said.count("--token-file"), 1, said)
        self.refused("serve", f"{self.a}@1", status=2)
        # A signal while it waits for a first contact.
        waiting = subprocess.Popen([REPRISE, "serve", str(self.b), "--follow", f"unix:{self.work}/nobody"], stderr=subprocess.PIPE)
        time.sleep(0.3)
        waiting.send_signal(signal.SIGTERM)
        self.assertEqual(waiting.communicate(timeout=TIMEOUT_S)[1], b"")
        self.assertEqual(waiting.returncode, 128 + signal.SIGTERM)
        self.assertFalse(self.b.exists())

    def test_flush(self):
        leader = self.leader()
        self.assertIn("no peer", self.refused("flush", self.a, status=1))
        self.serve(self.b, "--follow", self.endpoint(self.a), "--name", "relay", listen=False)
        self.serve(self.c, "--follow", self.endpoint(self.a), listen=False)
        for n in range(20):
            leader.do(f"open('file', 'w').write('{n}' * 1000)")
            more = (("--synced",), ("--peers", "2"), ("--peers", "relay", "--peers", "C"), ())[n % 4]
            token = self.reprise("flush", self.a, *more).strip()
            self.reprise("wait-for", self.b, token, "--timeout", 0)  # it is there already
            self.reprise("wait-for", self.c, token, "--timeout", 0)
            self.assertEqual(self.stat(self.b)["position"], token)
        answer = self.reprise_json("flush", self.a, "--synced")
        self.assertEqual(sorted(answer["peers"]), ["C", "relay"])
        self.assertIn("applied it: 3, found 2", self.refused("flush", self.a, "--peers", "3", "--timeout", 0.2, status=1))
        self.assertIn("nobody is not connected", self.refused("flush", self.a, "--peers", "nobody", "--timeout", 0.2, status=1))
        self.refused("flush", self.a, "--peers", "0", status=2)
        self.refused("flush", self.a, "--peers", "a b", status=2)
        # One that stands still holds up who waits for it, and nobody else.
        self.stop(self.served[0])
        leader.do("open('file', 'w').write('later')")
        self.assertIn("relay has not applied it", self.refused("flush", self.a, "--timeout", 0.5, status=1))
        self.reprise("flush", self.a, "--peers", "C", "--synced")
        self.reprise("flush", self.a, "--peers", "1")
        self.served[0].send_signal(signal.SIGCONT)
        self.reprise("flush", self.a, "--synced")
        # The follower's own store has nobody who follows it.
        self.assertIn("nobody can follow", self.refused("flush", self.c, status=1))
        leader.end()
        self.assertIn("not live", self.refused("flush", self.a, status=1))

    def test_waits_end_when_the_peer_is_detached(self):
        leader = self.leader()
        follower = self.serve(self.b, "--follow", self.endpoint(self.a), listen=False)
        leader.do("open('file', 'w').write('one')")
        self.reprise("flush", self.a)
        # Another volume in the same place makes it give up, as soon as it comes back there.
        leader.end()
        other = self.work / "other"
        self.run_inside(other, "echo other > file")
        self.serve(other, "--listen", self.endpoint(self.a), listen=False)
        self.eventually(lambda: self.stat(self.b)["follow"]["state"] == "detached")
        begin = time.monotonic()
        self.assertIn("detached", self.refused("wait-for", self.b, "never", "--timeout", 30, status=3))
        self.assertLess(time.monotonic() - begin, 10)
        self.assertIn("volume", self.end(follower))

    def test_a_follower_is_promoted_and_the_others_go_on(self):
        leader = self.leader()
        relay = self.serve(self.b, "--follow", self.endpoint(self.a))
        last = self.guest(self.c, "--follow", self.endpoint(self.b))
        leader.do("open('file', 'w').write('x' * 100_000)")
        self.reprise("flush", self.a)
        self.reprise("flush", self.b)
        self.assertIn("one that writes", self.refused("promote", self.a, status=2))
        self.assertIn("mounted", self.refused("promote", self.c, status=3))
        overwrites = self.stat(self.c)["follow"]["overwrites"]
        leader.kill()
        self.assertIn("leads", self.reprise("promote", self.b))
        self.assertEqual(self.stat(self.b)["role"], "leader")
        self.reprise("mark", self.b, "mine")
        self.reprise("wait-for", self.c, "mine")
        self.assertEqual(self.stat(self.c)["follow"]["overwrites"], overwrites)
        self.assertEqual(last.do("import os\nresult = os.stat('file').st_size"), 100_000)
        self.assertIn("one that writes", self.refused("promote", self.b, status=2))
        self.end(relay)
        # And once it is stopped it is a store like any other.
        self.run_inside(self.b, "echo more > file", "--listen", self.endpoint(self.b))
        self.reprise("verify", self.b)

    def test_a_stopped_follower_is_promoted_and_takes_what_another_has_more(self):
        leader = self.leader()
        for store in (self.b, self.c):
            self.serve(store, "--follow", self.endpoint(self.a), listen=False)
        leader.do("open('one', 'w').write('1')")
        self.reprise("flush", self.a)
        self.end(self.served[0])
        leader.do("open('two', 'w').write('2')")
        self.reprise("flush", self.a)
        self.end(self.served[1])
        leader.kill()
        self.assertIn("writes from now on", self.reprise("promote", self.b))
        follower = subprocess.Popen([REPRISE, "serve", str(self.c), "--follow", self.endpoint(self.b)],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.served.append(follower)
        promoted = self.guest(self.b, "--listen", self.endpoint(self.b))
        self.assertEqual(promoted.sh("cat one two"), "12")
        self.assertIn("was a follower", promoted.errors())
        self.assertRegex(promoted.errors(), r"took back \d+ batches that followers had and this disk had not")
        promoted.do("open('three', 'w').write('3')")
        self.reprise("flush", self.b)
        self.assertEqual(self.stat(self.c)["follow"]["overwrites"], 0)
        self.assert_in_step(self.b, self.c)
        self.refused("promote", self.work / "nothing", status=3)
        self.refused("promote", f"{self.b}@1", status=2)

    def test_a_former_leader_keeps_what_nobody_saw_as_a_branch(self):
        leader = self.leader()
        relay = self.serve(self.b, "--follow", self.endpoint(self.a))
        leader.sh("echo common > common; echo common > both; sync")
        self.reprise("flush", self.a)
        self.end(relay)
        leader.sh("echo unseen > unseen; mkdir dir; echo unseen > dir/file; sync dir/file")  # as sync(2) does not reach a mount
        leader.kill()
        self.reprise("promote", self.b)
        self.run_inside(self.b, "echo new > new")
        relay = self.serve(self.b)
        former = self.guest(self.a, "--follow", self.endpoint(self.b))
        self.reprise("flush", self.b)
        self.assertEqual(former.sh("cat new; ls"), "new\nboth\ncommon\nnew\n")
        kept, = re.findall(r"kept as the branch (\S+):", former.errors())
        self.assertEqual(self.reprise("cat", f"{self.a}:{kept}:/unseen"), "unseen\n")
        self.assertIn(kept, self.reprise("branches", self.a))
        former.end()
        self.end(relay)
        # It can be joined where its leader lets it write: here, promoted once more.
        self.reprise("promote", self.a)
        self.assertIn("joined into main", self.reprise("join", self.a, kept))
        self.assertEqual(self.reprise("cat", f"{self.a}:/unseen"), "unseen\n")
        self.assertEqual(self.reprise("cat", f"{self.a}:/new"), "new\n")
        self.reprise("verify", self.a)

    def watch(self, store):
        """A `reprise watch --json` that has begun."""
        process = subprocess.Popen([REPRISE, "watch", str(store), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.served.append(process)
        self.assertEqual(json.loads(process.stdout.readline())["kind"], "began")
        return process

    def test_watch(self):
        self.assertIn("expected a store", self.refused("watch", self.a, status=3))
        leader = self.leader()
        self.serve(self.b, "--follow", self.endpoint(self.a), listen=False)
        watchers = [self.watch(store) for store in (self.a, self.b)]
        leader.sh("echo one > file; mkdir dir; mv file dir/moved; printf 'a\\tb' > 'odd name'; rm 'odd name'; ln -s x link; chmod 700 dir")
        leader.do("open('last', 'w').close()")
        for watcher in watchers:
            seen = []
            while not seen or seen[-1]["path"] != "/last":
                seen.append(json.loads(watcher.stdout.readline()))
            # However they were taken together, one after the other they lead to what is there now.
            there = set()
            for change in seen:
                if change["kind"] == "created":
                    there.add(change["path"])
                elif change["kind"] == "removed":
                    there.remove(change["path"])
                elif change["kind"] == "renamed":
                    there.remove(change["from"])
                    there.add(change["path"])
                else:
                    self.assertEqual(change["kind"], "changed")
            self.assertEqual(there, {"/dir", "/dir/moved", "/link", "/last"}, seen)
        # One that does not read holds up nobody, and what it missed is told as little as can be.
        self.stop(watchers[0])
        leader.do("for i in range(3000):\n    with open(f'f{i % 3}', 'w') as f: f.write('x' * 1000)")
        leader.do("open('the end', 'w').close()")
        watchers[0].send_signal(signal.SIGCONT)
        lines = 0
        while json.loads(watchers[0].stdout.readline()).get("path") != "/the end":
            lines += 1
        self.assertLess(lines, 1000)
        # One that is killed leaves nothing behind but the others.
        watchers[0].kill()
        text = subprocess.Popen([REPRISE, "watch", str(self.b)], stdout=subprocess.PIPE, text=True)
        self.served.append(text)
        time.sleep(0.5)
        leader.do("import os\nos.rename('last', 'renamed')")
        self.assertEqual(text.stdout.readline(), "renamed /last -> /renamed\n")
        leader.end()
        self.end(self.served[0])
        for watcher in (watchers[1], text):
            _, err = watcher.communicate(timeout=TIMEOUT_S)
            self.assertEqual(watcher.returncode, 0, err)
        self.assertIn("not live", self.refused("watch", self.a, status=1))

    def test_stat_says_how_peers_are(self):
        leader = self.leader()
        leader.do("open('file', 'w').write('x' * 10_000)")
        self.serve(self.b, "--follow", self.endpoint(self.a), listen=False)
        self.reprise("flush", self.a)

        def peer():
            return self.stat(self.a)["peers"][0]

        self.eventually(lambda: self.stat(self.b)["follow"]["digests_compared"] > 0)
        found = peer()
        self.assertEqual(found["name"], "B")
        self.assertEqual(found["lag"], {"batches": 0, "operations": 0, "bytes": 0, "milliseconds": 0.0})
        self.assertIn(found["tier"], ("journal suffix", "snapshot"))
        self.assertTrue(found["reason"])
        self.assertGreater(found["digests_compared"], 0)
        self.assertGreater(found["sent_bytes"], 0)
        self.assertGreater(found["received_bytes"], 0)
        self.assertGreater(found["snapshot_bytes"], 10_000)
        self.assertGreater(self.stat(self.b)["follow"]["sent_bytes"], 0)
        self.stop(self.served[0])
        leader.do("import os\nfor i in range(50):\n    os.mkdir(f'd{i}')")
        time.sleep(0.3)
        lag = peer()["lag"]
        self.assertGreaterEqual(lag["operations"], 50)
        self.assertGreater(lag["batches"], 0)
        self.assertGreater(lag["bytes"], 1000)
        self.assertGreater(lag["milliseconds"], 250)
        self.served[0].send_signal(signal.SIGCONT)
        self.reprise("flush", self.a)
        self.assertEqual(peer()["lag"]["operations"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
