-- Changes its mind in the middle.
assert(io.open("/half", "w")):write("half")
error("changed its mind")
