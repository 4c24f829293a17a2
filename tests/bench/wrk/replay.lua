dofile(os.getenv("BENCH_LUA") .. "/common.lua")
local again = event(run)
function request() return post("/api/v1/usage", again) end
