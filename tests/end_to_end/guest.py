"""The guest that end-to-end tests put into an instance (harness.Guest).

Reads one JSON string a line, executes it as Python and answers with one line: {"result": …} of what it left in the name
`result`, or {"error": "…"}. The namespace is kept. Ends when its standard input does.
"""
import json
import os
import sys
import traceback


def modes_below(top):
    """Path → type and mode of everything below a directory, and of itself."""
    found = {}
    for folder, names, files in os.walk(top):
        for name in [".", *names, *files]:
            path = os.path.join(folder, name)
            found[os.fsencode(os.path.relpath(path, top)).decode(errors="backslashreplace")] = f"{os.lstat(path).st_mode:o}"
    return found


def main():
    names = {"modes_below": modes_below}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        names["result"] = None
        try:
            exec(json.loads(line), names)  # that is what it is for
            answer = {"result": names["result"]}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
