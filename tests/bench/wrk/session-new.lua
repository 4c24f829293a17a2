-- A session each: looked up, claimed and bound.
dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request() return decide("new-" .. unique()) end
