-- In turn: a decide of one of 20,000 sessions, a usage event, an assignment, a decide with an id.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local turn = 0
local task = '"task":{"type":"chat","payload":{"text":"hello there"}}'
function request()
  turn = turn + 1
  if turn % 4 == 0 then return decide("s-" .. math.random(20000)) end
  if turn % 4 == 1 then return post("/api/v1/usage", event(unique())) end
  if turn % 4 == 2 then
    return post("/api/v1/assignments", '{"assignment_id":"x-' .. unique() ..
      '","executor":{"provider_id":"openai:gpt-4o","channel":"nats"},"job":{"type":"chat","payload":{"text":"hello there"}}}')
  end
  return post("/api/v1/routes/decide", '{"assignment_id":"d-' .. unique() .. '",' .. task .. '}')
end
