dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request()
  return post("/api/v1/assignments", '{"assignment_id":"x-' .. unique() ..
    '","executor":{"provider_id":"openai:gpt-4o","channel":"nats"},"job":{"type":"chat","payload":{"text":"hello there"}}}')
end
