"""What the end-to-end tests have in common: the program under test, a directory of their own, and processes that end with them.

A test's instances are real processes of `reprise run`. What one of them should do from the inside is told to a guest
(guest.py), a small Python that runs in the mount and executes what it is sent.
"""
import json
import os
import pathlib
import pwd
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from guest import modes_below

HERE = pathlib.Path(__file__).resolve().parent
REPRISE = os.environ.get("REPRISE", "")
TIMEOUT_S = 60  # of any one command

if not os.access(REPRISE, os.X_OK):
    sys.exit(f"REPRISE must be the path of the reprise program, and is {REPRISE!r}")


def free_port():
    """A TCP port of the loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Finished:
    """How a command ended."""

    def __init__(self, command, status, out, err):
        self.command, self.status, self.out, self.err = command, status, out, err

    def __str__(self):
        return f"{' '.join(map(str, self.command))}\n  status {self.status}\n  out {self.out[-2000:]!r}\n  err {self.err[-2000:]!r}"


def execute(command, *, cwd=None, env=None, timeout=TIMEOUT_S, **options):
    """Runs a command to its end; whatever its status. What it printed is taken as text, undecodable bytes escaped."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout,
                          stdin=options.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    return Finished(command, done.returncode, done.stdout.decode(errors="backslashreplace"),
                    done.stderr.decode(errors="backslashreplace"))


class Guest:
    """A live instance with a guest in it that does what it is told."""

    def __init__(self, test, store, options=(), env=None, **popen):
        self.store = pathlib.Path(store)
        self.error_path = test.work / f"guest-{len(test.guests)}.err"
        with open(self.error_path, "wb") as errors:
            self.process = subprocess.Popen(
                [test.program, "run", "--store", str(store), *map(str, options), "--", test.python, "-u", str(test.guest_script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
                env={**os.environ, **(env or {})}, **popen)
        test.guests.append(self)
        if self._answer() != "ready":
            raise AssertionError("the guest greeted wrongly")

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(TIMEOUT_S)
            raise AssertionError(f"the guest of {self.store} is gone, status {self.process.returncode}: {self.errors()}")
        return json.loads(line)

    def errors(self):
        return self.error_path.read_text(errors="backslashreplace")

    def do(self, python):
        """Executes Python inside; what it leaves in `result` comes back. Names live on from call to call."""
        self.tell(python)
        return self.answer()

    def tell(self, python):
        """Begins to execute; answer() waits for the end."""
        self.process.stdin.write(json.dumps(python).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        answer = self._answer()
        if "error" in answer:
            raise AssertionError(f"inside {self.store}: {answer['error']}")
        return answer["result"]

    def sh(self, script):
        """Runs a shell script inside, which must end well; what it printed."""
        status, out, err = self.do("import subprocess\n"
                                   f"done = subprocess.run(['sh', '-euc', {script!r}], capture_output=True, stdin=subprocess.DEVNULL)\n"
                                   "result = [done.returncode, done.stdout.decode(errors='backslashreplace'),"
                                   " done.stderr.decode(errors='backslashreplace')]")
        if status != 0:
            raise AssertionError(f"inside {self.store}: status {status} of {script}\n{out}\n{err}")
        return out

    def end(self):
        """Has the guest end, and the instance with it, cleanly. The instance's exit status."""
        self.process.stdin.close()
        status = self.process.wait(TIMEOUT_S)
        self.process.stdout.close()
        return status

    def kill(self, number=signal.SIGKILL):
        """Kills the instance's process, not the guest: as a crash of the server would."""
        self.process.send_signal(number)
        self.process.wait(TIMEOUT_S)
        self.process.stdin.close()
        self.process.stdout.close()

    def clean_up(self):
        for stream in (self.process.stdin, self.process.stdout):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(TIMEOUT_S)


class EndToEnd(unittest.TestCase):
    """A test with a directory of its own, `work`. In the end nothing is left: no process, no mount, no file."""

    maxDiff = 4000
    program, python, guest_script = REPRISE, sys.executable, HERE / "guest.py"

    def setUp(self):
        # Short, because the path of a Unix socket has at most 107 bytes.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="reprise-"))
        self.work.chmod(0o755)
        self.guests = []
        self.addCleanup(self._leave_nothing)

    def give_up_root(self):
        """From here on `user` and `environment` start programs as whoever runs the tests; root becomes nobody."""
        self.environment = {}
        self.user = {}
        self.uid, self.gid = os.getuid(), os.getgid()
        if self.uid != 0:
            return
        nobody = pwd.getpwnam("nobody")
        self.uid, self.gid = nobody.pw_uid, nobody.pw_gid
        self.user = {"user": self.uid, "group": self.gid, "extra_groups": []}
        # The machine's device may be root's alone.
        device = self.work / "fuse"
        os.mknod(device, 0o666 | 0o020000, os.stat("/dev/fuse").st_rdev)
        os.chmod(device, 0o666)
        self.environment = {"REPRISE_FUSE_DEVICE": str(device), "HOME": str(self.work), "PATH": "/usr/bin:/bin"}
        os.chown(self.work, self.uid, self.gid)
        # So may what the tests are run with.
        self.program = shutil.copy(REPRISE, self.work / "reprise")
        self.guest_script = shutil.copy(self.guest_script, self.work)
        self.python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or self.python

    def _leave_nothing(self):
        for guest in self.guests:
            guest.clean_up()
        mounts = [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(self.work) in line]
        left = self._processes_left()
        shutil.rmtree(self.work)
        self.assertEqual(mounts, [], "mounts are left")
        self.assertEqual(left, [], "processes are left")

    def _processes_left(self):
        """Command lines of processes that name our directory; those that are ending get a moment."""
        for _ in range(100):
            left = []
            for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = entry.read_bytes().replace(b"\0", b" ").decode(errors="backslashreplace")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if str(self.work) in line:
                    left.append(line)
            if not left:
                break
            time.sleep(0.05)
        return left

    def reprise(self, *words, status=0, **options):
        """Runs `reprise WORDS…`, which must end with the status given; what it printed on standard output."""
        done = execute([REPRISE, *words], **options)
        self.assertEqual(done.status, status, done)
        return done.out

    def reprise_json(self, *words):
        return json.loads(self.reprise(*words, "--json"))

    def refused(self, *words, status, **options):
        """Runs `reprise WORDS…`, which must fail with the status and one line on standard error; that line."""
        done = execute([REPRISE, *words], **options)
        self.assertEqual(done.status, status, done)
        self.assertRegex(done.err, r"\Areprise: [^\n]+\n\Z", done)
        return done.err

    def run_inside(self, store, script, *options, status=0, **more):
        """Runs a shell script in an instance of the store, to its end."""
        return self.reprise("run", "--store", store, *options, "--", "sh", "-euc", script, status=status, **more)

    def succeed(self, *words, **options):
        done = execute(words, **options)
        self.assertEqual(done.status, 0, done)
        return done.out

    def guest(self, store, *options, **popen):
        return Guest(self, store, options, **popen)

    def stat(self, store):
        return self.reprise_json("stat", store)

    def ask(self, store, **question):
        """Asks a live instance through its control socket, past every mount and without a process of its own."""
        text = json.dumps(question).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(pathlib.Path(store) / "branches/main/control"))
            connection.sendall(struct.pack("<I", len(text)) + text)
            stream = connection.makefile("rb")
            answer = json.loads(stream.read(struct.unpack("<I", stream.read(4))[0]))
        self.assertIn("answer", answer)
        return answer["answer"]

    def digests(self, store):
        """State digest and content digest, counted from the bytes."""
        found = self.reprise_json("digest", store)
        return found["digest"], found["content"]

    def assert_in_step(self, *stores):
        """The stores (or states) have one and the same digest."""
        found = {str(store): self.digests(store) for store in stores}
        self.assertEqual(len(set(found.values())), 1, found)

    def assert_same_tree(self, one, other, *exclude, inside=None):
        """By what `diff` sees, and by types and modes. `inside`: a guest in whose mount `other` is."""
        diff = ["diff", "-r", "--no-dereference", *[f"--exclude={name}" for name in exclude], str(one), str(other)]
        if inside is None:
            self.succeed(*diff)
            modes = modes_below(other)
        else:
            inside.sh(shlex.join(diff))
            modes = inside.do(f"result = modes_below({str(other)!r})")
        self.assertEqual(modes_below(one), modes)


if __name__ == "__main__":
    sys.exit("this is no test")
