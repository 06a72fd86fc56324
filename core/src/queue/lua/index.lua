-- Prepended to every script: the keys, the clock, and the ready index. `P` (the prefix) is set by the caller.
--
-- A ready job is one member, `id:size`, of its LANE: the sorted set of one queue, size class and host, by time of admission.
-- HEADS of a queue and class holds each host that may be asked, by its lane's oldest job. CLASSES of a queue holds each class
-- that has heads, by its oldest head. So the oldest job of a queue is found by three look-ups, however many wait, and a class
-- is passed over by one. A host at its limit is LIFTED out of the heads where it stood first, and put back when it may be asked.
-- Ids have no '/', so it parts the names within a key. Class n has the sizes from 2^n up to 2^(n+1).

local call = redis.call

-- Redis prints 14 digits of a Lua number, a time in microseconds has 16: numbers become text here, never by themselves.
local function digits(number)
  return string.format('%.0f', number)
end

local function now_micros()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function job_key(id) return P .. 'job:' .. id end
local function body_key(id) return P .. 'body:' .. id end
local function depth_key(queue) return P .. 'depth:' .. queue end
local function classes_key(queue) return P .. 'classes:' .. queue end
local function heads_key(queue, class) return P .. 'heads:' .. queue .. '/' .. class end
local function lane_key(queue, class, host) return P .. 'lane:' .. queue .. '/' .. class .. '/' .. host end
local function lifted_key(host) return P .. 'lifted:' .. host end
local function claims_key(node) return P .. 'claims:' .. node end
local ACTIVE, LEASES, DELAYED, DEAD = P .. 'active', P .. 'leases', P .. 'delayed', P .. 'dead'

-- Bytes that wait. A size beyond all reason must not stop a transition, so an overflow here is let go.
local function count_bytes(queue, sign, size)
  redis.pcall('HINCRBY', depth_key(queue), 'bytes', sign .. size)
end

-- The class's oldest head, or its absence, becomes known to its queue.
local function refresh_class(queue, class)
  local head = call('ZRANGE', heads_key(queue, class), 0, 0, 'WITHSCORES')
  if head[1] then
    call('ZADD', classes_key(queue), head[2], class)
  else
    call('ZREM', classes_key(queue), class)
  end
end

-- A host shows its lane's oldest job among the heads, unless it is lifted.
local function show_lane(queue, class, host, oldest)
  call('ZADD', heads_key(queue, class), 'LT', oldest, host)
  call('ZADD', classes_key(queue), 'LT', oldest, class)
end

local function add_ready(id, queue, class, host, size, admitted)
  call('ZADD', lane_key(queue, class, host), admitted, id .. ':' .. size)
  if call('SISMEMBER', lifted_key(host), class .. '/' .. queue) == 0 then
    show_lane(queue, class, host, admitted)
  end
  call('HINCRBY', depth_key(queue), 'ready', 1)
  count_bytes(queue, '', size)
end

-- Takes a member out of a lane whose host is not lifted there.
local function take_ready(queue, class, host, member, size)
  local lane = lane_key(queue, class, host)
  call('ZREM', lane, member)
  local oldest = call('ZRANGE', lane, 0, 0, 'WITHSCORES')
  if oldest[1] then
    call('ZADD', heads_key(queue, class), oldest[2], host)
  else
    call('ZREM', heads_key(queue, class), host)
  end
  refresh_class(queue, class)
  call('HINCRBY', depth_key(queue), 'ready', -1)
  count_bytes(queue, '-', size)
end

local function lift(queue, class, host)
  call('ZREM', heads_key(queue, class), host)
  call('SADD', lifted_key(host), class .. '/' .. queue)
  refresh_class(queue, class)
end

-- The host stands where it was lifted from again.
local function put_back(host)
  local lanes = call('SMEMBERS', lifted_key(host))
  for _, lane in ipairs(lanes) do
    local class, queue = lane:match('^(%d+)/(.*)$')
    local oldest = call('ZRANGE', lane_key(queue, class, host), 0, 0, 'WITHSCORES')
    if oldest[1] then
      show_lane(queue, class, host, oldest[2])
    end
  end
  call('DEL', lifted_key(host))
end
