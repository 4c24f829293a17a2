-- Requests for wrk. BENCH_KEY: the API key; BENCH_RUN: makes the ids of this run new ones; BENCH_NOW: ms since 1970.
-- BENCH_RECEIPTS: a folder that the body of each 2xx is written to, a line each, in a file a thread.
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
function decide(session)
  return post("/api/v1/routes/decide", '{"policy_id":"default","task":{"type":"chat","payload":{"text":"hello there"}},' ..
    '"context":{"session_id":"' .. session .. '"}}')
end
local receipts, file = os.getenv("BENCH_RECEIPTS"), nil
if receipts then
  function response(status, _, body)
    if status < 300 then
      file = file or assert(io.open(receipts .. "/" .. run .. "-" .. number, "w"))
      file:write(body, "\n")
    end
  end
end
