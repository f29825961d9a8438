-- Says what there is, as a follower sees it.
for line in io.lines("/articles/index") do
  local file <close> = assert(io.open("/articles/" .. line))
  print(line, (file:read("l")))
end
print(io.open("/greeting"):read("a"))
print(pcall(assert, io.open("/half")))
print(select(2, io.open("/new", "w")))
