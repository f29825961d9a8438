"""The examples do what their first lines say.

    examples.py MINIMAL_C MINIMAL_CPP
"""
import subprocess
import sys
import tempfile

minimal_c, minimal_cpp = sys.argv[1:]


def expect(command, output):
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    if (done.returncode, done.stdout, done.stderr) != (0, output, ""):
        print(f"{command}: expected\n{output}found status {done.returncode} and\n{done.stdout}{done.stderr}")
        sys.exit(1)


expect([minimal_c], "17 bytes: hello from 0.1.0\n"
       "as it should be: reprise_open /no/such/file: No such file or directory (ENOENT)\n")
with tempfile.TemporaryDirectory() as folder:
    expect([minimal_cpp, folder], "hello: hi\nreport: done\n")
