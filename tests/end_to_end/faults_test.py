"""Three instances in a chain, real programs at work in the first, while the ways between them are slow, stalled and cut, and
the others are stopped and killed. In the end all are alike, and what the programs left is sound.

    FAULTS_S=600 STOPPED_S=60 SEED=7 REPRISE=… faults_test.py     for so long; stopped for so long at a time
"""
import os
import pathlib
import random
import signal
import subprocess
import time
import unittest

from harness import TIMEOUT_S, EndToEnd, execute
from proxy import Proxy

FAULTS_S = float(os.environ.get("FAULTS_S", 12))
STOPPED_S = float(os.environ.get("STOPPED_S", 1.5))

# One round of work; what it takes to be done is checked by each program itself.
WORK = r"""
set -eu
cd "$1"; round=$2
php -r '
    $db = new PDO("sqlite:site.db"); $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
    $db->exec("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS post (round INTEGER, body TEXT)");
    $db->beginTransaction();
    for ($i = 0; $i < 20; $i++) $db->exec("INSERT INTO post VALUES ($argv[1], hex(randomblob(300)))");
    $db->commit();
    if ($argv[1] % 5 == 4) $db->exec("DELETE FROM post WHERE round < $argv[1] - 3");
' "$round"
sqlite3 -bail shop.db "PRAGMA journal_mode = DELETE; CREATE TABLE IF NOT EXISTS t (round); INSERT INTO t VALUES ($round);" > sqlite.out
mkdir -p repo; cd repo
[ -d .git ] || git init -q .
head -c 20000 /dev/urandom | base64 > "file$((round % 7))"; [ $((round % 4)) != 3 ] || git rm -q -f --ignore-unmatch "file$(((round + 3) % 7))"
git add -A; git -c user.name=a -c user.email=a@b -c commit.gpgsign=false commit -q -m "round $round"
[ $((round % 6)) != 5 ] || git gc -q
cd ..; rm -rf cache; mkdir cache; for i in 1 2 3 4 5 6 7 8; do echo "$round" > cache/$i; done; mv cache/1 cache/first
"""


class Faults(EndToEnd):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
        self.chance = random.Random(self.seed)
        self.mounted, self.proxies = {}, []
        self.addCleanup(self.end_all)

    def end_all(self):
        for process in self.mounted.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=TIMEOUT_S)
        for proxy in self.proxies:
            proxy.end()

    def mount(self, name, *options):
        path = self.work / f"{name}.mnt"
        path.mkdir(exist_ok=True)
        with open(self.work / f"{name}.err", "ab") as errors:
            process = subprocess.Popen([self.program, "mount", self.work / name, path, *options], stdout=subprocess.PIPE,
                                       stderr=errors, text=True)
        self.mounted[name] = process
        self.assertIn("is mounted at", process.stdout.readline(), (self.work / f"{name}.err").read_text())
        return path

    def proxy(self, listen, to):
        self.proxies.append(Proxy(self.work / listen, self.work / to, self.seed + len(self.proxies)))
        return f"unix:{self.work / listen}"

    def follower(self):
        return self.mount("F", "--follow", f"unix:{self.work}/pL", "--listen", f"unix:{self.work}/sF")

    def stop_for_a_while(self, name):
        self.mounted[name].send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        self.mounted[name].send_signal(signal.SIGCONT)

    def kill_and_start(self, name):
        process = self.mounted.pop(name)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        # The mount goes with who watches over it.
        path, mounts = str(self.work / f"{name}.mnt"), pathlib.Path("/proc/self/mountinfo")
        deadline = time.monotonic() + TIMEOUT_S
        while path in mounts.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.follower()

    def befall(self, met):
        proxy = self.chance.choice(self.proxies)
        fault = self.chance.choice(["delay", "cut", "cut in messages", "stall", "refuse", "stop G", "stop F", "kill F"])
        met.append(fault)
        if fault == "delay":
            proxy.delay_s = self.chance.choice([0.001, 0.02, 0.2])
        elif fault == "cut":
            proxy.cut()
        elif fault == "cut in messages":
            proxy.cut_after = self.chance.choice([500, 20_000, 500_000])
        elif fault == "stall":
            proxy.stall()
        elif fault == "refuse":
            proxy.refuses = True
            proxy.cut()
        elif fault == "kill F":
            proxy.heal()  # it is not mounted before it has been greeted by who has its volume
            self.kill_and_start("F")
        else:
            self.stop_for_a_while(fault[-1])
        time.sleep(self.chance.uniform(0.1, 0.8))
        proxy.heal()

    def test_whatever_befalls_the_ways_and_the_followers_all_are_alike_in_the_end(self):
        leader = self.mount("L", "--listen", f"unix:{self.work}/sL")
        self.proxy("pL", "sL")
        follower = self.follower()
        self.proxy("pF", "sF")
        second = self.mount("G", "--follow", f"unix:{self.work}/pF")
        (self.work / "work.sh").write_text(WORK)
        met, rounds = [], 0
        end = time.monotonic() + FAULTS_S
        working = None
        while time.monotonic() < end or working is not None:
            if working is None:
                working = subprocess.Popen(["sh", self.work / "work.sh", leader, str(rounds)], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if time.monotonic() < end:
                self.befall(met)
            else:
                working.wait(TIMEOUT_S)
            if working.poll() is not None:
                said = working.communicate()[0]
                self.assertEqual((working.returncode, said), (0, ""), f"SEED={self.seed}, {met}")
                rounds, working = rounds + 1, None
        for proxy in self.proxies:
            proxy.heal()
        with self.subTest(seed=self.seed, met=met, rounds=rounds):
            self.assertGreater(rounds, 0)
            self.reprise("mark", self.work / "L", "done")
            for name in "FG":
                done = execute([self.program, "wait-for", self.work / name, "done", "--timeout", "60"], timeout=90)
                self.assertEqual(done.status, 0, (done, (self.work / f"{name}.err").read_text(), self.stat(self.work / name)))
            self.assert_in_step(*(self.work / name for name in "LFG"))
            for path in (follower, second):
                # SQLite's index of a WAL is in a mapping: what is in it is the writer's alone.
                self.assert_same_tree(leader, path)
                self.assertEqual(self.succeed("sqlite3", f"file:{path}/shop.db?immutable=1", "PRAGMA integrity_check; SELECT count(*) FROM t"),
                                 f"ok\n{rounds}\n")
                self.assertEqual(self.succeed("git", "-c", "safe.directory=*", "-C", path / "repo", "rev-list", "--count", "HEAD"), f"{rounds}\n")
                self.succeed("git", "-c", "safe.directory=*", "-C", path / "repo", "fsck", "--strict", "--no-dangling")
            self.assertEqual(self.succeed("sqlite3", leader / "site.db", "PRAGMA integrity_check"), "ok\n")
            for name in "GFL":
                process = self.mounted.pop(name)
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=TIMEOUT_S)
                self.assertEqual(process.returncode, 0, (self.work / f"{name}.err").read_text())
                self.reprise("verify", self.work / name)
            print(f"SEED={self.seed}: {rounds} rounds; {', '.join(f'{met.count(what)} {what}' for what in sorted(set(met)))}; "
                  f"{sum(p.connections for p in self.proxies)} connections, {sum(p.cuts for p in self.proxies)} cut", flush=True)


if __name__ == "__main__":
    unittest.main()
