dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request()
  local events = {}
  for i = 1, 100 do events[i] = event(unique()) end
  return post("/api/v1/usage/batch", '{"events":[' .. table.concat(events, ",") .. ']}')
end
