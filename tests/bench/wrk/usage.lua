dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request() return post("/api/v1/usage", event(unique())) end
