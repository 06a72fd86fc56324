-- Gives a node what it is to fetch next: the first job, of the first of its levels that has one, that fits, whose host may be
-- asked now, and that no node behind its share waits for; with others of the same lane, where a batch is wanted.
--
-- ARGV  1 node   2 request   3 room: bytes   4 room: inodes   5 ceiling: bytes that could ever fit   6 weight
--       7 free slots, this one included   8 lease: microseconds   9 transfers at once from one host, over all nodes
--      10 start gap: microseconds between two starts from one host   11 batch: jobs   12 batch: bytes
--      13 '/LEVEL/LEVEL/', for the others   14 how many of the levels, the first ones, are hosts' own; the rest are of copies
--      15... two for each level, most important first: its queue, and '1' when urgent
-- Reply {'jobs', then for each of them: id, body, revision, attempts, expires, admitted, queue}   microseconds, as text
--       {'again'}: much was put aside and more may be there: ask again at once
--       {'hosts'}: jobs wait, but their hosts may not be asked now
--       {'room'}: jobs wait, but none fits
--       {'reserved'}: jobs wait, but this node's room is kept for a large one that is overdue
--       {'yields'}: jobs wait, but this node is ahead of its share and another one wants them (a weight of 0 always yields)
--       {'empty'}: no job is ready
--
-- The same request again, its answer lost, gets the same jobs. The cost does not grow with what waits: every search below is
-- bounded, and what a search finds in its way (a busy host) is put aside once, not passed again by the next claim.
--
-- NODE keeps what was asked and answered: `asked`, `asking` (0 without a free slot left), `room`, `inodes`, `ceiling`, `weight`,
-- `levels`, `said`, `yields_to`, `request`, `jobs`; the node's `pace` and `largest` job lately, `turn`; and a reservation:
-- `reserved` (a job), `reserved_until`. PACE has the nodes that asked lately by their pace: bytes given / weight.
--
-- Its parts are in claim/: ask, share (weights), choose (levels, fit, hosts), overdue (promises, reservations), take.

-- Timers that have run out are acted on a few at a time, by whoever asks.
local MOST_TIMERS = 8

-- The leases that this very request was given, as far as they have not ended.
local function repeated()
  local reply, expires = {'jobs'}, digits(now + tonumber(ARGV[8]))
  for id in me[2]:gmatch('%S+') do
    local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted', 'queue', 'state', 'node', 'request')
    if job[5] == 'leased' and job[6] == node and job[7] == request then
      call('ZADD', LEASES, 'XX', expires, id)
      answer(reply, id, job, expires)
    end
  end
  return reply[2] and reply
end

local function run_timers()
  for _, timer in ipairs(call('ZRANGEBYSCORE', TIMERS, '-inf', now_text, 'LIMIT', 0, MOST_TIMERS)) do
    call('ZREM', TIMERS, timer)
    local kind, name = timer:match('^(%a+):(.*)$')
    if kind == 'host' then
      put_back(name)
    else
      local job = placed(name)
      if job and job.state == 'delayed' then
        call('HSET', job_key(name), 'state', 'ready')
        call('HINCRBY', depth_key(job.queue), 'delayed', -1)
        count_bytes(job.queue, '-', job.size)
        add_ready(job)
      end
    end
  end
end

-- While room is kept here for a large job: that job when it fits now, otherwise the less room for others.
local function take_reserved()
  if not me[7] or tonumber(me[8]) <= now then
    return nil
  end
  local job = placed(me[7])
  if not job or job.state ~= 'ready' then
    call('HDEL', node_key(node), 'reserved', 'reserved_until')
    return nil
  end
  local bytes, files = needs(job.need)
  if bytes <= room and files <= inodes then
    for at = 15, #ARGV, 2 do
      if ARGV[at] == job.queue then
        local chosen = chosen_by_record({queue = job.queue, urgent = ARGV[at + 1] == '1'}, job, bytes, files)
        if chosen then
          return take(chosen)
        end
      end
    end
  end
  room, inodes = room - bytes, inodes - files
end

if me[1] == request then
  local reply = repeated()
  if reply then
    return reply
  end
end
if weight == 0 then
  call('ZREM', PACE, node)
  return nothing('yields')
end
run_timers()
local away, old_weight = tonumber(me[3] or 0) < now - BACK or me[12] == 'room', tonumber(me[9] or 0)
if away or old_weight ~= weight then
  take_up(away or old_weight == 0, old_weight)
end
waiting = behind()
local reply = take_reserved()
if reply then
  return reply
end

local function level_at(number)
  local at = 13 + number * 2
  return {queue = ARGV[at], urgent = ARGV[at + 1] == '1'}
end

-- Levels take turns, one at each claim: what is overdue in the one whose turn it is comes before the usual order. So the lowest
-- level starts in time under a flood of the first, and a flood of overdue jobs there leaves the first its share. All levels of
-- copies, one for each node, have one turn together.
if room > 0 and levels > 0 then
  local own = tonumber(ARGV[14])
  turn = turn % (own < levels and own + 1 or own) + 1
  local level = level_at(turn <= own and turn or own + 1 + now % (levels - own))
  local chosen = not wanted_by(level.queue, room, inodes) and choose_overdue(level)
  if chosen then
    return take(chosen)
  end
end

local ready, met_busy, any_head, yields_to = false, false, false, nil
for number = 1, levels do
  local level = level_at(number)
  -- Who is behind and takes whatever this node could, needs no look at the jobs.
  local all_wanted_by = wanted_by(level.queue, room, inodes)
  yields_to = all_wanted_by or yields_to
  local chosen, busy
  if room > 0 and not all_wanted_by and (number == 1 or call('EXISTS', due_key(level.queue)) == 1) then
    chosen, busy = choose(level, 0)
  end
  if chosen and waiting[1] then
    local by, their_room = wanted_by(level.queue, chosen.bytes, chosen.files)
    if by then
      -- What is too large for all who are behind is left for this node.
      yields_to = by
      chosen, busy = choose(level, class_of(their_room))
    end
  end
  if chosen then
    return take(chosen)
  end
  if aside >= MOST_ASIDE then
    return {'again'}
  end
  met_busy = met_busy or busy
  any_head = any_head or call('EXISTS', classes_key(level.queue)) == 1
  ready = ready or call('EXISTS', due_key(level.queue)) == 1
end
if not ready then
  return nothing('empty')
elseif yields_to and any_head then
  return nothing('yields', yields_to)
elseif met_busy or not any_head then
  -- Ready, and no head anywhere: every source that has jobs is put aside.
  return nothing('hosts')
end
return nothing(room < tonumber(ARGV[3]) and 'reserved' or 'room')
