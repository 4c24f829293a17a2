-- One of the first thousand sessions, which a worker mostly knows itself.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
math.randomseed(os.time())
function request() return decide("live-" .. math.random(0, math.min(1000, os.getenv("BENCH_LIVE")) - 1)) end
