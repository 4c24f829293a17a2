-- Requests for wrk. BENCH_KEY: the API key; BENCH_RUN: makes the ids of this run new ones; BENCH_NOW: ms since 1970.
local thread_number = 0
function setup(thread)
  thread:set("number", thread_number)
  thread_number = thread_number + 1
end
key, run, count = os.getenv("BENCH_KEY"), os.getenv("BENCH_RUN"), 0
headers = {["Content-Type"] = "application/json", ["X-CP-Phase"] = "cp2", ["Authorization"] = "Bearer " .. key,
           ["X-Tenant-ID"] = "acme", ["X-Role"] = "service"}
if os.getenv("BENCH_HEADERS") then headers["Authorization"] = nil else headers["X-Role"] = nil end
function unique()
  count = count + 1
  return run .. "-" .. number .. "-" .. count
end
function event(id)
  return '{"usage_id":"u-' .. id .. '","assignment_id":"a-' .. id .. '","provider_id":"openai:gpt-4o",' ..
    '"event_type":"chat","latency_ms":850,"cost":0.012,"status":"success","timestamp":' .. os.getenv("BENCH_NOW") .. '}'
end
function post(path, body) return wrk.format("POST", path, headers, body) end
