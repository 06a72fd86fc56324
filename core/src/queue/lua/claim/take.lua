-- Part of claim.lua: what was chosen becomes leases.

-- A batch is of single files, each of which takes so many inodes (INODES_OF_A_BACKUP of job.rs): what else there is would be fetched
-- one after the other by one slot. None stands further behind the first than this, in microseconds: what joins a batch passes
-- all that waits elsewhere between the two.
local FILE_INODES, BATCH_AGE = 4, 600000000
-- A node forgets the largest job that it was given by so much with each further one.
local FORGOTTEN = 1 / 64

-- The jobs to give with the chosen one, itself included: more of its lane, as far as a batch may go. They leave the lane. Also
-- what they need in all.
local function pick(chosen)
  local queue, class, source, lane = chosen.level.queue, chosen.class, chosen.source, chosen.lane
  local picked, bytes, files, batch_bytes = {chosen.member}, chosen.bytes, chosen.files, tonumber(ARGV[12])
  local left
  for i = 3, #lane, 2 do
    local more, more_files = needs(lane[i], 38)
    local total = bytes + more
    if #picked < batch_jobs and total <= batch_bytes and total <= room and files + more_files <= inodes
      and chosen.files == FILE_INODES and more_files == FILE_INODES and lane[i + 1] - lane[2] <= BATCH_AGE then
      picked[#picked + 1] = lane[i]
      bytes, files = total, files + more_files
    else
      left = left or lane[i + 1]
    end
  end
  call('ZREM', lane_key(queue, class, source), unpack(picked))
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

-- Makes leases of what was chosen and picked, and the answer.
local function give(chosen, picked, bytes, files)
  local queue = chosen.level.queue
  local reply, ids, waited = {'jobs'}, {}, '0'
  local expires = digits(now + tonumber(ARGV[8]))
  for i, member in ipairs(picked) do
    local id = member:sub(1, 36)
    ids[i] = id
    local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted', 'size', 'batch')
    local last, attempts = tonumber(job[1]), tonumber(job[2])
    if last and attempts and tonumber(job[3]) and tonumber(job[4]) then
      local revision, more = last < now and now_text or digits(last + 1), tostring(attempts + 1)
      call('HSET', job_key(id), 'state', 'leased', 'node', node, 'revision', revision, 'request', request,
        'attempts', more)
      if job[5] then
        call('HDEL', job_key(id), 'batch')
      end
      call('ZADD', LEASES, expires, id)
      answer(reply, id, revision, more, expires, job[3], queue)
      -- Of one job as it is written: sizes beyond what a number holds are possible.
      waited = #picked == 1 and job[4] or waited + job[4]
    elseif call('EXISTS', job_key(id)) == 1 then
      -- Someone changed its record by hand. It has left the index, and must not be forgotten.
      call('HSET', job_key(id), 'state', 'dead', 'code', 'malformed', 'text', 'numbers of its record are missing or damaged')
      call('ZADD', DEAD, now_text, 'job:' .. id)
      if tonumber(job[4]) then
        count_bytes(queue, '-', job[4])
      end
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

-- What stands first in its lane, with more of that lane.
local function take(chosen)
  return give(chosen, pick(chosen))
end
