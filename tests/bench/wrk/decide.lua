dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request()
  count = count + 1
  return post("/api/v1/routes/decide", '{"policy_id":"default","task":{"type":"chat","payload":{"text":"hello there"}},' ..
    '"context":{"session_id":"s-' .. count % 100 .. '"}}')
end
