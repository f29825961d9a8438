"""What libreprise.so shows is what reprise.h declares, in its version, and nothing else.

    symbols.py LIBRARY HEADER NM
"""
import pathlib
import re
import subprocess
import sys

library, header, nm = sys.argv[1:]
declared = set(re.findall(r"^REPRISE_API [^;(]*?\b(reprise_\w+)\(", pathlib.Path(header).read_text(), re.MULTILINE))
listing = subprocess.run([nm, "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
exported = {line.split()[-1] for line in listing.splitlines()} - {"REPRISE_0"}
wanted = {f"{name}@@REPRISE_0" for name in declared}
if not declared or exported != wanted:
    print(f"{library}: expected to show {len(declared)} functions;", "missing:", *sorted(wanted - exported), "; more:", *sorted(exported - wanted))
    sys.exit(1)
print(f"{len(exported)} functions")
