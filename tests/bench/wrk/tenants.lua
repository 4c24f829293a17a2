-- The keys of BENCH_KEYS, a line each, one after the other: every other request a decide, then a usage event.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local keys, turn = {}, 0
for line in io.lines(os.getenv("BENCH_KEYS")) do keys[#keys + 1] = line end
headers["X-Tenant-ID"] = nil
function request()
  turn = turn + 1
  headers["Authorization"] = "Bearer " .. keys[math.floor(turn / 2) % #keys + 1]
  if turn % 2 == 0 then return decide("s-" .. turn % 100) end
  return post("/api/v1/usage", event(unique()))
end
