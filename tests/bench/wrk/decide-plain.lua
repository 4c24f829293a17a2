dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request()
  return post("/api/v1/routes/decide", '{"policy_id":"default","task":{"type":"chat","payload":{"text":"hello there"}}}')
end
