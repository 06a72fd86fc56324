-- Part of claim.lua: what was chosen becomes leases.

-- The jobs to give with the chosen one, itself included: more of its lane, if it stands first there, as far as a batch may go.
-- And the first place left in the lane; nil for none.
local function pick(chosen)
  local lane = lane_key(chosen.level.queue, chosen.class, chosen.source)
  if not chosen.lane or chosen.member ~= chosen.lane[1] then
    call('ZREM', lane, chosen.member)
    local bytes, files = needs(chosen.member:sub(38))
    return {chosen.member}, call('ZRANGE', lane, 0, 0, 'WITHSCORES')[2], bytes, files
  end
  local picked, left = {}, nil
  local bytes, files, batch_bytes = 0, 0, tonumber(ARGV[12])
  for i = 1, #chosen.lane, 2 do
    local member = chosen.lane[i]
    local more, more_files = needs(member:sub(38))
    local total = bytes + more
    if #picked < batch_jobs and (i == 1 or total <= batch_bytes) and total <= room and files + more_files <= inodes then
      picked[#picked + 1] = member
      bytes, files = total, files + more_files
    else
      left = left or chosen.lane[i + 1]
    end
  end
  call('ZREM', lane, unpack(picked))
  return picked, left, bytes, files
end

local function take(chosen)
  local queue = chosen.level.queue
  local picked, left, bytes, files = pick(chosen)
  refresh_lane(queue, chosen.class, chosen.source, left)
  local reply, ids, waited = {'jobs'}, {}, 0
  local now_text, expires = digits(now), digits(now + tonumber(ARGV[8]))
  for i, member in ipairs(picked) do
    local id = member:sub(1, 36)
    ids[i] = id
    local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted', 'queue', 'size')
    -- Without a record, someone removed it by hand; its place in the index is gone now too.
    if job[1] then
      job[1] = digits(math.max(tonumber(job[1]) + 1, now))
      job[2] = digits(tonumber(job[2]) + 1)
      call('HSET', job_key(id), 'state', 'leased', 'node', node, 'revision', job[1], 'request', request,
        'attempts', job[2], 'claimed', now_text, 'batch', 1)
      call('ZADD', LEASES, expires, id)
      answer(reply, id, job, expires)
      waited = waited + tonumber(job[5])
    end
  end
  call('ZREM', due_key(queue), unpack(ids))
  count_bytes(queue, '-', digits(waited))
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
  call('ZADD', PACE, digits(pace), node)
  remember('jobs', free_slots > 1, 'room', digits(math.max(tonumber(ARGV[3]) - bytes, 0)),
    'inodes', digits(math.max(tonumber(ARGV[4]) - files, 0)), 'free', digits(free_slots - 1), 'largest', digits(largest),
    'request', request, 'jobs', table.concat(ids, ' '))
  return reply
end
