dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request()
  return post("/api/v1/routes/decide", '{"assignment_id":"d-' .. unique() ..
    '","task":{"type":"chat","payload":{"text":"hello there"}}}')
end
