#!/usr/bin/env python3
"""Mounts that end in every way there is, over and over, with programs still in them; then counts what is left.

    tests/fuse/cycles.py REPRISE [CYCLES]     REPRISE is the program, CYCLES of each kind of end (3)

Nothing may be left of any: no mount, no process, no directory of ours; and the store opens again. What nobody is left to
remove, the empty mountpoint in the store of a `run` that was killed, goes with the next one.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 20
# What is left running by a command that ends: it writes until it cannot.
BUSY = "(while echo x > busy-$$; do :; done) 2>/dev/null & (exec 9> held; sleep 0.2; echo y >&9) 2>/dev/null & "


class Failed(Exception):
    pass


def mounts(below):
    return [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(below) in line]


def processes(marker):
    """Those whose command line or environment names this run."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if marker in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append((entry.name, (entry / "cmdline").read_bytes().replace(b"\0", b" ")))
        except OSError:
            pass
    return found


def wait_until(what, true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: still not so after {PATIENCE_S} s")
        time.sleep(0.005)


class Cycles:
    def __init__(self, program, work):
        self.program, self.work = program, work
        self.store, self.path = work / "store", work / "mnt"
        self.path.mkdir()
        self.marker = f"REPRISE_CYCLES={work}".encode()
        self.environment = dict(os.environ, REPRISE_CYCLES=str(work))

    def start(self, *arguments):
        return subprocess.Popen([self.program, *arguments], env=self.environment, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, start_new_session=True)

    def end(self, process, number):
        if number:
            process.send_signal(number)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"does not end by {signal.Signals(number).name if number else 'itself'}") from None
        process.stdout.close()

    def run(self, number):
        command = BUSY + ("exec sleep 60" if number else "exit 0")
        process = self.start("run", "--store", self.store, "--", "sh", "-c", "echo in; " + command)
        process.stdout.readline()
        self.end(process, number)
        if number != signal.SIGKILL and (self.store / "mnt").exists():
            raise Failed("the store has a mountpoint left")

    def mount(self, number):
        process = self.start("mount", self.store, self.path)
        if not process.stdout.readline():
            raise Failed("mount said nothing")
        inside = subprocess.Popen(["sh", "-c", BUSY + "wait"], cwd=self.path, env=self.environment,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(0.02)
        if number == 0:  # which waits for those inside
            self.kill(inside)
            subprocess.run(["umount", "--lazy", self.path], check=True)
        self.end(process, number)
        wait_until("no mount is left", lambda: not mounts(self.path))
        self.kill(inside)

    def idle_mount(self, number):
        """The kernel has all of it cached: nothing is asked that would tell of its end."""
        process = self.start("mount", self.store, self.path)
        process.stdout.readline()
        for _ in range(3):
            list(self.path.iterdir())
        if number == 0:
            subprocess.run(["umount", self.path], check=True)
        self.end(process, number)
        wait_until("no mount is left", lambda: not mounts(self.path))

    @staticmethod
    def kill(inside):
        try:
            os.killpg(inside.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        inside.wait()

    def check(self):
        wait_until("no process is left", lambda: not processes(self.marker))
        if mounts(self.work):
            raise Failed(f"mounts are left: {mounts(self.work)}")
        if not self.path.is_dir() or any(self.path.iterdir()):
            raise Failed("the mountpoint is not as it was")
        left = {entry.name for entry in self.work.iterdir()} - {"store", "mnt"}
        if left:
            raise Failed(f"left behind: {left}")
        subprocess.run([self.program, "verify", self.store], check=True, stdout=subprocess.DEVNULL)


def main():
    program, cycles = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    if os.geteuid() != 0:
        print("mounting for everybody needs root here")
        return 1
    work = pathlib.Path(tempfile.mkdtemp(prefix="reprise-cycles-"))
    done = 0
    try:
        cycle = Cycles(program, work)
        for _ in range(cycles):
            for kind in (cycle.run, cycle.mount, cycle.idle_mount):
                for number in (0, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
                    try:
                        kind(number)
                        cycle.check()
                    except Failed as failure:
                        how = signal.Signals(number).name if number else "its own end"
                        print(f"cycle {done + 1}, {kind.__name__} by {how}: {failure}")
                        return 1
                    done += 1
        print(f"{done} cycles: nothing left")
        return 0
    finally:
        for pid, _ in processes(f"REPRISE_CYCLES={work}".encode()):
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        subprocess.run(["umount", "--lazy", "--quiet", work / "mnt"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
