dofile(os.getenv("BENCH_LUA") .. "/common.lua")
function request()
  count = count + 1
  return decide("s-" .. count % 100)
end
