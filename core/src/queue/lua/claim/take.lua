-- Part of claim.lua: what was chosen becomes leases.

-- The jobs to give with the chosen one, itself included: more of its lane, if it stands first there, as far as a batch may go.
-- They leave the lane. Also what they need in all.
local function pick(chosen)
  local queue, class, source, lane = chosen.level.queue, chosen.class, chosen.source, chosen.lane
  local key = lane_key(queue, class, source)
  if not lane then
    call('ZREM', key, chosen.member)
    refresh_lane(queue, class, source, call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    return {chosen.member}, chosen.bytes, chosen.files
  end
  local picked, bytes, files, batch_bytes = {chosen.member}, chosen.bytes, chosen.files, tonumber(ARGV[12])
  local left
  for i = 3, #lane, 2 do
    local more, more_files = needs(lane[i], 38)
    local total = bytes + more
    if #picked < batch_jobs and total <= batch_bytes and total <= room and files + more_files <= inodes then
      picked[#picked + 1] = lane[i]
      bytes, files = total, files + more_files
    else
      left = left or lane[i + 1]
    end
  end
  call('ZREM', key, unpack(picked))
  -- As `refresh_lane` would do, but the class's next head is known.
  local first = chosen.next_head
  if left then
    call('ZADD', heads_key(queue, class), left, source)
    first = first and tonumber(first) < tonumber(left) and first or left
  else
    call('ZREM', heads_key(queue, class), source)
  end
  if first then
    call('ZADD', classes_key(queue), first, class)
  else
    call('ZREM', classes_key(queue), class)
  end
  return picked, bytes, files
end

local function take(chosen)
  local queue = chosen.level.queue
  local picked, bytes, files = pick(chosen)
  local reply, ids, waited = {'jobs'}, {}, '0'
  local expires = digits(now + tonumber(ARGV[8]))
  for i, member in ipairs(picked) do
    local id = member:sub(1, 36)
    ids[i] = id
    local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted', 'queue', 'size')
    -- Without a whole record, someone changed it by hand; its place in the index is gone now too.
    if job[1] and job[2] and job[3] and job[5] then
      local last = tonumber(job[1])
      job[1] = last < now and now_text or digits(last + 1)
      job[2] = tostring(tonumber(job[2]) + 1)
      call('HSET', job_key(id), 'state', 'leased', 'node', node, 'revision', job[1], 'request', request,
        'attempts', job[2], 'claimed', now_text, 'batch', 1)
      call('ZADD', LEASES, expires, id)
      answer(reply, id, job, expires)
      -- Of one job as it is written: sizes beyond what a number holds are possible.
      waited = #picked == 1 and job[5] or waited + tonumber(job[5])
    end
  end
  call('ZREM', due_key(queue), unpack(ids))
  count_bytes(queue, '-', #picked == 1 and waited or digits(waited))
  local given = (#reply - 1) / 7
  if given == 0 then
    return {'again'}
  end
  call('HINCRBY', depth_key(queue), 'leased', given)
  if given > 1 then
    -- One transfer until the last of them ends.
    call('HSET', host_key(chosen.host), 'batch/' .. request, given)
    for at = 2, #reply, 7 do
      call('HSET', job_key(reply[at]), 'batch', given)
    end
  end
  local state, gap = chosen.state, tonumber(chosen.state[9] or ARGV[10])
  local active, of_module = tonumber(state[1] or 0) + 1, tonumber(state[2] or 0) + 1
  if gap > 0 then
    call('HSET', host_key(chosen.host), 'active', active, 'active/' .. chosen.module, of_module,
      'next_start', digits(now + gap))
  else
    call('HSET', host_key(chosen.host), 'active', active, 'active/' .. chosen.module, of_module)
  end
  largest = math.max(bytes, largest * (1 - FORGOTTEN))
  pace = pace + bytes / weight
  local pace_text = exact(pace)
  call('ZADD', PACE, pace_text, node)
  remember('jobs', free_slots > 1, pace_text, 'room', digits(math.max(tonumber(ARGV[3]) - bytes, 0)),
    'inodes', digits(math.max(tonumber(ARGV[4]) - files, 0)), 'largest', digits(largest), 'request', request,
    'jobs', table.concat(ids, ' '))
  return reply
end
