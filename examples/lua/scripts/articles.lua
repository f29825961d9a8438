-- Writes a few articles and an index of them.
files.mkdir("/articles")
for n = 1, 3 do
  local file <close> = assert(io.open("/articles/" .. n .. ".txt", "w"))
  file:write("article ", n, "\n"):write(("."):rep(n), "\n")
end
io.output("/articles/index")
for _, name in ipairs(files.list("/articles")) do io.write(name, "\n") end
io.close()
