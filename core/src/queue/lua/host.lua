-- Prepended, after index.lua, to every script that asks whether a host may be asked, or changes the answer.
--
-- HOST holds what decides it: `active` transfers, over all nodes and all modules, and `active/MODULE`; `batch/REQUEST`, how many
-- leases are left of a claim that took several at once, which is one transfer until the last of them ends; `next_start`;
-- `failures` since `failing_since`, in a row, which make it rest until `rests_until` because of `code` and `text`;
-- `closed_until` and `closed_why`; and the operator's `transfers`, `transfers/MODULE` and `start_gap`, which win over the
-- asking node's.
--
-- Where a source is put aside, something will put it back: a lease's end when the host has all the transfers it may have,
-- otherwise the host's timer. It may be put back too early, since a claim only puts it aside again; never not at all.

local FAILING = P .. 'failing'

-- Nothing when the host may be asked; 0 when not before one of its transfers ends; or the time before which it rests.
local function blocked(state, now, urgent, transfers)
  if tonumber(state[1] or 0) >= tonumber(state[3] and 1 or state[7] or transfers) then
    return 0
  end
  if state[8] and tonumber(state[2] or 0) >= tonumber(state[8]) then
    return 0
  end
  local free = math.max(tonumber(state[4] or 0), tonumber(state[5] or 0), not urgent and tonumber(state[6] or 0) or 0)
  if free > now then
    return free
  end
end

-- What `blocked` is to judge: how one module of a host stands.
local function host_state(host, module)
  return call('HMGET', host_key(host), 'active', 'active/' .. module, 'failures', 'rests_until', 'next_start',
    'closed_until', 'transfers', 'transfers/' .. module, 'start_gap')
end

-- Puts a source aside in one queue and class, until a lease of the host ends (0), or until a time.
local function put_aside(queue, class, source, host, free)
  call('ZREM', heads_key(queue, class), source)
  call('SADD', aside_key(host), queue .. '/' .. class .. '/' .. source)
  refresh_class(queue, class)
  if free > 0 then
    call('ZADD', TIMERS, 'LT', digits(free), 'host:' .. host)
  end
end

-- So many at once, lest a host with a module for each of its jobs hold up everyone at each lease's end.
local MOST_PUT_BACK = 64

-- The host's sources stand where they were put aside from again; what is left of very many, a second later.
local function put_back(host)
  local lanes = call('SPOP', aside_key(host), MOST_PUT_BACK)
  for _, lane in ipairs(lanes) do
    local queue, class, source = lane:match('^([^/]*)/(%d+)/(.*)$')
    local first = call('ZRANGE', lane_key(queue, class, source), 0, 0, 'WITHSCORES')[2]
    if first then
      show_lane(queue, class, source, first)
    end
  end
  if #lanes == MOST_PUT_BACK and call('EXISTS', aside_key(host)) == 1 then
    call('ZADD', TIMERS, 'LT', digits(now_micros() + 1000000), 'host:' .. host)
  end
end
