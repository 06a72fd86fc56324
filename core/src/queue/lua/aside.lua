-- Prepended, after index.lua: sources whose host may not be asked now stand aside of the ready index.
--
-- Where a source is put aside, something will put it back: a lease's end when the host has all the transfers it may have,
-- otherwise the host's timer. It may be put back too early, since a claim only puts it aside again; never not at all.

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
    local first = call('ZRANGE', lane_key(queue, class, source), '0', '0', 'WITHSCORES')[2]
    if first then
      show_lane(queue, class, source, first)
    end
  end
  if #lanes == MOST_PUT_BACK and call('EXISTS', aside_key(host)) == 1 then
    call('ZADD', TIMERS, 'LT', digits(now_micros() + 1000000), 'host:' .. host)
  end
end
