"""The guest that end-to-end tests put into an instance (harness.Guest).

Reads one JSON string a line, executes it as Python and answers with one line: {"result": …} of what it left in the name
`result`, or {"error": "…"}. The namespace is kept. Ends when its standard input does.
"""
import json
import sys
import traceback

names = {}
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    names["result"] = None
    try:
        exec(json.loads(line), names)  # that is what it is for
        answer = {"result": names["result"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
