-- Any of the live sessions: of a million, each is looked up in the bucket.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
math.randomseed(os.time())
function request() return decide("live-" .. math.random(0, os.getenv("BENCH_LIVE") - 1)) end
