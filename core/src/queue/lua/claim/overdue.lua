-- Part of claim.lua: what comes before the usual order. Jobs past their time, and the room that is kept for large ones.

-- Overdue jobs looked at in a level before its usual order decides.
local MOST_OVERDUE = 4
-- An overdue job whose host may not be asked is looked at again when it may be, though within these bounds: the jobs of a dead or
-- closed host must not hide all others, and it may be asked sooner than was thought.
local OVERDUE_AGAIN, OVERDUE_AGAIN_LATEST = 1000000, 300000000
-- How long a node's room is kept for one large job, and how long others are left in peace then: longer each time.
local RESERVATION, LONGEST_PAUSE = 600000000, 86400000000
-- Room is kept on one node of so many at most (or on one), so that all else goes on; for more large jobs than that, it is looked
-- again after this. ENOUGH_KEPT is there until then.
local OF_NODES, KEEP_AGAIN, ENOUGH_KEPT = 3, 60000000, P .. 'enough_kept'
-- A level in which this claim found nothing, and whether sources were put aside there: it need not be searched again.
local searched

-- A job that was found by its record, as `choose` would have found it; or nil, and until when its host is blocked, and why.
local function chosen_by_record(level, job, bytes, files)
  local chosen, free, why = source_at(level, job.class, job.host .. '/' .. job.module)
  if free then
    return nil, free, why
  end
  chosen.member, chosen.bytes, chosen.files = job.id .. ':' .. job.need, bytes, files
  return chosen
end

-- Takes what was chosen by its record, and may stand anywhere in its lane, or, with a lane, what `choose` found.
local function take_found(chosen)
  if chosen.lane then
    return take(chosen)
  end
  local queue, class, source = chosen.level.queue, chosen.class, chosen.source
  local lane = lane_key(queue, class, source)
  call('ZREM', lane, chosen.member)
  refresh_lane(queue, class, source, call('ZRANGE', lane, '0', '0', 'WITHSCORES')[2])
  return give(chosen, {chosen.member}, chosen.bytes, chosen.files)
end

-- A job of this level past its time, if one can be taken here.
local function choose_overdue(level)
  -- The nodes that asked lately, as far as a reservation asks; and on how many of them room is kept. Read at most once in a claim.
  local others, kept
  local is_enough = call('EXISTS', ENOUGH_KEPT) == 1
  local function look_at_nodes()
    others, kept = {}, 0
    for _, name in ipairs(call('ZRANGE', PACE, '0', '-1')) do
      local other = call('HMGET', node_key(name), 'asked', 'ceiling', 'room', 'levels', 'reserved_until', 'inodes')
      if name == node then
        other = {now, ARGV[5], ARGV[3], ARGV[13], me[8], ARGV[4]}
      end
      if tonumber(other[1] or 0) > now - GONE then
        local is_kept = tonumber(other[5] or 0) > now
        kept = is_kept and kept + 1 or kept
        others[#others + 1] = {
          name = name, ceiling = tonumber(other[2]), room = tonumber(other[3]), levels = other[4], is_kept = is_kept,
          inodes = tonumber(other[6]),
        }
      end
    end
  end

  -- An overdue job that fits nowhere is offered new room first: the room of the node that has most, of those that could ever hold
  -- it, is kept for it for a while, then everyone is left in peace for a while.
  local function reserve(job, bytes, files)
    if is_enough then
      return
    end
    local tries = call('HMGET', job_key(job.id), 'reserve_after', 'reserve_tries')
    if tonumber(tries[1] or 0) > now then
      return
    end
    if not others then
      look_at_nodes()
    end
    local best, could_hold
    for _, other in ipairs(others) do
      if other.ceiling >= bytes and other.levels:find('/' .. level.queue .. '/', 1, true) then
        could_hold = true
        if other.room >= bytes and other.inodes >= files then
          -- It fits there now, and is taken when that node's slot is free.
          return
        end
        if not other.is_kept and (not best or other.room > best.room) then
          best = other
        end
      end
    end
    if could_hold and kept >= math.max(1, math.floor(#others / OF_NODES)) then
      is_enough = true
      call('SET', ENOUGH_KEPT, '1', 'PX', digits(KEEP_AGAIN / 1000))
      return
    elseif could_hold and not best then
      call('HSET', job_key(job.id), 'reserve_after', digits(now + KEEP_AGAIN))
      return
    end
    if not could_hold then
      kept_waiting('too_large')
    end
    local number = tonumber(tries[2] or 0)
    local ends = best and now + RESERVATION or now
    call('HSET', job_key(job.id), 'reserve_tries', number + 1, 'reserve_after',
      digits(ends + math.min(RESERVATION * 2 ^ math.min(number, 20), LONGEST_PAUSE)))
    if best then
      best.is_kept, kept = true, kept + 1
      call('HSET', job_key(job.id), 'reserved', best.name, 'reserved_until', digits(ends))
      call('HSET', node_key(best.name), 'reserved', job.id, 'reserved_until', digits(ends))
    end
  end

  local queue, unfit = level.queue, 0
  local due = due_key(queue)
  -- The first of these that can be taken here.
  local function first_of(ids)
    for _, id in ipairs(ids) do
      local job = placed(id)
      if not job then
        -- Someone removed the record by hand.
        call('ZREM', due, id)
      else
        local bytes, files = needs(job.need)
        if not bytes then
          -- Changed by hand, too.
          call('ZREM', due, id)
        elseif bytes > room or files > inodes then
          unfit = unfit + 1
          reserve(job, bytes, files)
        else
          local chosen, free, why = chosen_by_record(level, job, bytes, files)
          if free then
            kept_waiting(why)
            call('ZADD', due, 'XX', digits(math.min(math.max(free, now + OVERDUE_AGAIN), now + OVERDUE_AGAIN_LATEST)), id)
          elseif not wanted_by(queue, bytes, files) then
            return chosen
          end
        end
      end
    end
  end
  local found = first_of(call('ZRANGEBYSCORE', due, '-inf', now_text, 'LIMIT', '0', MOST_OVERDUE))
  local more = not found and unfit > 0 and call('ZCOUNT', due, '-inf', now_text) - MOST_OVERDUE or 0
  if more > 0 then
    -- Those that fit nowhere, or only elsewhere, stay in front: some others each time, lest they hide all.
    local at = MOST_OVERDUE + now % more
    found = first_of(call('ZRANGE', due, at, math.min(at, more) + MOST_OVERDUE - 1))
  end
  if unfit > 0 then
    kept_waiting('room', unfit)
  end
  if found or unfit == 0 then
    return found
  end
  -- Behind large ones that don't fit here there may be others.
  local chosen, met_busy = choose(level, 0)
  if not chosen then
    searched = {queue = queue, met_busy = met_busy}
  elseif tonumber(call('ZSCORE', due, chosen.member:sub(1, 36)) or 0) <= now then
    return not wanted_by(queue, chosen.bytes, chosen.files) and chosen or nil
  end
end
