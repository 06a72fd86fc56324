-- Gives a node the oldest job, of the first of its queues that has one, that fits and whose host may be asked now.
--
-- ARGV  1 node   2 request   3 room: bytes   4 room class: the class of the size `room`   5 lease: microseconds
--       6 host limit: transfers at once from one host, over all nodes   7... queues, most important first
-- Reply {'job', id, body, revision, attempts, expires, admitted}   times in microseconds, as text
--       {'again'}: much was put aside and more may be there: ask again at once
--       {'hosts'}: jobs wait, but their hosts are at the limit
--       {'room'}:  jobs wait, but none fits
--       {'empty'}: no job is ready
--
-- The same request again, its answer lost, gets the same job. The cost does not grow with what waits: every search below is
-- bounded, and what a search finds in its way (a busy host) is put aside once, not passed again by the next claim.
-- `choose` is the policy, the only place that says which job a node gets.

local node, request = ARGV[1], ARGV[2]
local room, room_class = tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_micros, host_limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_micros()

-- Retries that come due are made ready a few at a time, by whoever asks.
local MOST_PROMOTED = 8
-- Busy hosts put aside in one call.
local MOST_LIFTED = 24
-- In the class of the room itself some sizes fit and some don't: so many of the oldest hosts, and as many at random, are
-- looked at, and of each so many jobs. What fits is found sooner or later, whatever stands before it.
local BOUNDARY_HOSTS, BOUNDARY_JOBS = 6, 16

local function answer(id, revision, attempts, expires, admitted)
  return {'job', id, call('GET', body_key(id)), revision, attempts, expires, admitted}
end

local function repeated()
  local id = call('HGET', claims_key(node), request)
  if not id then
    return nil
  end
  local expires = digits(now + lease_micros)
  call('ZADD', LEASES, 'XX', expires, id)
  local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted')
  return answer(id, job[1], job[2], expires, job[3])
end

local function promote()
  local due = call('ZRANGEBYSCORE', DELAYED, '-inf', digits(now), 'LIMIT', 0, MOST_PROMOTED)
  for _, id in ipairs(due) do
    local job = call('HMGET', job_key(id), 'queue', 'class', 'host', 'size', 'admitted')
    call('ZREM', DELAYED, id)
    if job[1] then
      call('HSET', job_key(id), 'state', 'ready')
      call('HINCRBY', depth_key(job[1]), 'delayed', -1)
      count_bytes(job[1], '-', job[4])
      add_ready(id, job[1], job[2], job[3], job[4], job[5])
    end
  end
end

local function may_be_asked(host)
  return tonumber(call('HGET', ACTIVE, host) or 0) < host_limit
end

-- The oldest of these members (with their scores) that fits, and its score.
local function oldest_that_fits(members)
  local best, best_score
  for i = 1, #members, 2 do
    local score = tonumber(members[i + 1])
    if (not best or score < best_score) and tonumber(members[i]:match(':(%d+)$')) <= room then
      best, best_score = members[i], score
    end
  end
  return best, best_score
end

local lifted = 0
local function put_aside(queue, class, host)
  lift(queue, class, host)
  lifted = lifted + 1
end

-- Looks through the class that the room itself falls into: what to take there, if anything, and whether busy hosts were put
-- aside.
local function choose_at_boundary(queue, class)
  local heads = heads_key(queue, class)
  local hosts = call('ZRANGE', heads, 0, BOUNDARY_HOSTS - 1)
  if #hosts == BOUNDARY_HOSTS then
    for _, host in ipairs(call('ZRANDMEMBER', heads, BOUNDARY_HOSTS)) do
      hosts[#hosts + 1] = host
    end
  end
  local best, met_busy = nil, false
  for _, host in ipairs(hosts) do
    if may_be_asked(host) then
      local lane = lane_key(queue, class, host)
      local member, score = oldest_that_fits(call('ZRANGE', lane, 0, BOUNDARY_JOBS - 1, 'WITHSCORES'))
      if not member and call('ZCARD', lane) > BOUNDARY_JOBS then
        member, score = oldest_that_fits(call('ZRANDMEMBER', lane, BOUNDARY_JOBS, 'WITHSCORES'))
      end
      if member and (not best or score < best.score) then
        best = {class = class, host = host, member = member, score = score}
      end
    else
      put_aside(queue, class, host)
      met_busy = true
    end
  end
  return best, met_busy
end

-- What to take from a queue: class, host and member; or nil, and whether busy hosts were put aside.
local function choose(queue)
  local met_busy, boundary_seen, at_boundary = false, false, nil
  local last = 0
  while lifted < MOST_LIFTED do
    local look_again = false
    -- Mostly the first class has it; only when not, all are looked at, by the age of their oldest.
    for _, class in ipairs(call('ZRANGE', classes_key(queue), 0, last)) do
      local number = tonumber(class)
      if number < room_class then
        local head = call('ZRANGE', heads_key(queue, class), 0, 0, 'WITHSCORES')
        if at_boundary and at_boundary.score < tonumber(head[2]) then
          return at_boundary
        end
        if may_be_asked(head[1]) then
          return {class = class, host = head[1], member = call('ZRANGE', lane_key(queue, class, head[1]), 0, 0)[1]}
        end
        put_aside(queue, class, head[1])
        look_again = true
        break
      elseif number == room_class and not boundary_seen then
        boundary_seen = true
        at_boundary, look_again = choose_at_boundary(queue, class)
        if look_again then
          boundary_seen = false
          break
        end
      end
    end
    met_busy = met_busy or look_again
    if not look_again then
      if last == -1 then
        return at_boundary, met_busy
      end
      last = -1
    end
  end
  return nil, true
end

local function take(queue, chosen)
  local id, size = chosen.member:match('^(.*):(%d+)$')
  take_ready(queue, chosen.class, chosen.host, chosen.member, size)
  local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted')
  if not job[1] then
    -- Someone removed the record by hand; its place in the index is gone now too.
    return {'again'}
  end
  local revision = digits(math.max(tonumber(job[1]) + 1, now))
  local attempts = digits(tonumber(job[2]) + 1)
  local expires = digits(now + lease_micros)
  call('HSET', job_key(id), 'state', 'leased', 'node', node, 'revision', revision, 'request', request,
    'attempts', attempts, 'claimed', digits(now))
  call('ZADD', LEASES, expires, id)
  call('HSET', claims_key(node), request, id)
  call('HINCRBY', ACTIVE, chosen.host, 1)
  call('HINCRBY', depth_key(queue), 'leased', 1)
  return answer(id, revision, attempts, expires, job[3])
end

local given = repeated()
if given then
  return given
end
promote()
local ready, met_busy, any_head = 0, false, false
for i = 7, #ARGV do
  local queue = ARGV[i]
  local chosen, busy = choose(queue)
  if chosen then
    return take(queue, chosen)
  end
  if lifted >= MOST_LIFTED then
    return {'again'}
  end
  met_busy = met_busy or busy
  any_head = any_head or call('EXISTS', classes_key(queue)) == 1
  ready = ready + tonumber(call('HGET', depth_key(queue), 'ready') or 0)
end
if ready == 0 then
  return {'empty'}
end
-- Ready, and no head anywhere: every host that has jobs is put aside.
return {(met_busy or not any_head) and 'hosts' or 'room'}
