"""full_disk.py DIRECTORY REPRISE, in a mount namespace of its own: an instance whose store lies on a disk that fills up.

Prints what was not as it should be, and exits 1 then.
"""
import json
import os
import subprocess
import sys

disk, reprise = sys.argv[1:]
store = f"{disk}/S"

# Writes until it is told no, and logs what fsync said was on the disk.
WRITER = r"""
import errno, json, os
safe, said = [], None
for i in range(10_000):
    try:
        with open(f'file-{i}', 'wb') as f:
            f.write(bytes([i % 251]) * 20_000)
            f.flush()
            os.fsync(f.fileno())
        safe.append(i)
    except OSError as error:
        said = errno.errorcode[error.errno]
        break
readable = all(open(f'file-{i}', 'rb').read() == bytes([i % 251]) * 20_000 for i in safe)
try:
    open('one more', 'w').write('x'); os.mkdir('and a directory'); fd = os.open('.', os.O_RDONLY); os.fsync(fd); later = 'done'
except OSError as error:
    later = errno.errorcode[error.errno]
print(json.dumps({'safe': len(safe), 'said': said, 'readable': readable, 'later': later}))
"""
CHECK = r"""
import sys
for i in range(int(sys.argv[1])):
    assert open(f'file-{i}', 'rb').read() == bytes([i % 251]) * 20_000, f'file-{i} is not as it was acknowledged'
open('after', 'w').write('x')
"""


def expect(condition, what):
    if not condition:
        sys.exit(print(what) or 1)


def run(*command):
    return subprocess.run([reprise, "run", "--store", store, "--", *command], capture_output=True, text=True, timeout=50)


subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
with open(f"{disk}/ballast", "wb") as ballast:
    ballast.write(bytes(10 << 20))
first = run("python3", "-c", WRITER)
expect(first.stdout, f"the writer said nothing: {first}")
told = json.loads(first.stdout)
expect(told["said"] in ("ENOSPC", "EROFS", "EIO"), f"expected the guest to be told of the full disk, found {told}")
expect(told["said"] != "EIO", f"expected ENOSPC or EROFS, found {told}")
expect(told["later"] in ("ENOSPC", "EROFS"), f"expected later writes to be refused, found {told}")
expect(told["readable"], "what was acknowledged could not be read while the disk was full")
expect(told["safe"] > 20, f"the disk was full at once: {told}")
expect("space" in first.stderr or "No space" in first.stderr, f"expected a word of the full disk, found {first.stderr!r}")

# While it is full to the last byte: refused with a reason, or opened read-only to look at; never a crash, also where the catalogue's
# lock file is gone or has no blocks yet.
lock_file = f"{store}/catalogue.lmdb-lock"
for state in ("as it was", "empty", "missing"):
    if state == "empty":
        os.truncate(lock_file, 0)
    elif state == "missing":
        os.unlink(lock_file)
    with open(f"{disk}/rest", "ab", buffering=0) as rest:
        try:
            while rest.write(bytes(4096)):
                pass
        except OSError:
            pass
    second = run("true")
    expect(second.returncode in (0, 125), f"on the full disk, lock file {state}: {second}")
    listed = subprocess.run([reprise, "log", store], capture_output=True, text=True)
    expect(listed.returncode in (0, 3), f"log on the full disk, lock file {state}: {listed}")
    expect(listed.returncode == 0 or "No space left" in listed.stderr, f"log on the full disk, lock file {state}: {listed}")
os.unlink(f"{disk}/rest")
# With space again everything acknowledged is there.
os.unlink(f"{disk}/ballast")
third = run("python3", "-c", CHECK, str(told["safe"]))
expect(third.returncode == 0, f"with space again: {third}")
verified = subprocess.run([reprise, "verify", store], capture_output=True, text=True)
expect(verified.returncode == 0, f"verify: {verified}")
subprocess.run(["umount", disk], check=True)
