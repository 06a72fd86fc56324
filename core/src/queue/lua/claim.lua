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
-- Its parts are in claim/: ask, take, usual, share (weights), and for what is rarer choose (levels, fit, hosts), overdue (promises,
-- reservations).

-- Timers that have run out are acted on a few at a time, by whoever asks.
local MOST_TIMERS = 8

-- While room is kept here for a large job: that job when it fits now, otherwise the less room for others.
local function take_reserved()
  if not is_reserved then
    return nil
  end
  local job = placed(me[7])
  if not job or job.state ~= 'ready' then
    call('HDEL', node_key(node), 'reserved', 'reserved_until')
    me[8] = nil
    call('DEL', ENOUGH_KEPT)
    return nil
  end
  local bytes, files = needs(job.need)
  if bytes <= room and files <= inodes then
    for at = 15, #ARGV, 2 do
      if ARGV[at] == job.queue then
        local chosen = chosen_by_record({queue = job.queue, urgent = ARGV[at + 1] == '1'}, job, bytes, files)
        if chosen then
          return take_found(chosen)
        end
      end
    end
  end
  room, inodes = room - bytes, inodes - files
end

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
local reply = take_reserved()
if reply then
  return reply
end

if room > 0 and turn_level then
  local chosen = not all_wanted_by(turn_level.queue) and choose_overdue(turn_level)
  if chosen then
    return take_found(chosen)
  end
end

local ready, met_busy, any_head, yields_to = false, false, false, nil
for number = 1, levels do
  local level = level_at(number)
  local has_head, chosen, busy = call('EXISTS', classes_key(level.queue)) == 1, nil, nil
  local all_wanted_by = has_head and all_wanted_by(level.queue) or nil
  yields_to = all_wanted_by or yields_to
  if room > 0 and has_head and not all_wanted_by then
    if searched and searched.queue == level.queue then
      busy = searched.met_busy
    else
      chosen, busy = choose(level, 0)
    end
  end
  local by = chosen and wanted_by(level.queue, chosen.bytes, chosen.files)
  if by then
    -- What is too large for all who are behind is left for this node.
    yields_to = by
    chosen, busy = choose(level, class_of(largest_room(level.queue)))
  end
  if chosen then
    return take_found(chosen)
  end
  if aside >= MOST_ASIDE then
    return {'again'}
  end
  met_busy = met_busy or busy
  any_head = any_head or has_head
  ready = ready or has_head or call('EXISTS', due_key(level.queue)) == 1
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
