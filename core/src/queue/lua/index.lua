-- Prepended, after keys.lua, to every script that moves jobs: the ready index.
--
-- A ready job is one member, `ID:BYTES:INODES` (what it needs of a disk), of its LANE: the sorted set of one queue, size class
-- and source (`HOST/MODULE`), by the job's PLACE: its admission, or its deadline where its level is ordered so. HEADS of a queue
-- and class holds each source that may be asked, by its lane's first place. CLASSES of a queue holds each class that has heads,
-- by its first head. So the first job of a queue is found by three look-ups, however many wait, and a class is passed over by
-- one. DUE of a queue holds every ready job by the time at which it is lifted.
--
-- A source whose host may not be asked now is put ASIDE out of the heads where it stood first (aside.lua), and put back later.
-- Class n has the needs from 2^n up to 2^(n+1) bytes; all below 2 MiB are class 20, since telling them apart saves no room and
-- one lane can be fetched as a batch. Names have no '/', so it parts them within a key.
--
-- For other transitions: `placed` reads where a job stands, `add_ready` and `remove_ready` move it in and out of the index. Its
-- `state` in the record is theirs to write. Only `claim.lua` gives leases, only `end_lease` (lease.lua) ends them.

-- Where a job stands, from its record; nil when there is none. `need` is `BYTES:INODES`.
local function placed(id)
  local found = call('HMGET', job_key(id), 'queue', 'class', 'host', 'module', 'need', 'size', 'place', 'due', 'state')
  if not found[1] then
    return nil
  end
  return {
    id = id, queue = found[1], class = found[2], host = found[3], module = found[4], need = found[5], size = found[6],
    place = found[7], due = found[8], state = found[9],
  }
end

-- The class's first head, or its absence, becomes known to its queue.
local function refresh_class(queue, class)
  local head = call('ZRANGE', heads_key(queue, class), '0', '0', 'WITHSCORES')
  if head[1] then
    call('ZADD', classes_key(queue), head[2], class)
  else
    call('ZREM', classes_key(queue), class)
  end
end

-- A lane has a first place, or none (nil), after members left it. A source that is put aside stays so.
local function refresh_lane(queue, class, source, first)
  if first then
    call('ZADD', heads_key(queue, class), 'XX', first, source)
  else
    call('ZREM', heads_key(queue, class), source)
  end
  refresh_class(queue, class)
end

-- A source stands among the heads with its lane's first job.
local function show_lane(queue, class, source, first)
  call('ZADD', heads_key(queue, class), 'LT', first, source)
  call('ZADD', classes_key(queue), 'LT', first, class)
end

local function add_ready(job)
  local source = job.host .. '/' .. job.module
  call('ZADD', lane_key(job.queue, job.class, source), job.place, job.id .. ':' .. job.need)
  call('ZADD', due_key(job.queue), job.due, job.id)
  if call('SISMEMBER', aside_key(job.host), job.queue .. '/' .. job.class .. '/' .. source) == 0 then
    show_lane(job.queue, job.class, source, job.place)
  end
  count_bytes(job.queue, '', job.size)
end

-- Whether the job was in the index.
local function remove_ready(job)
  local source = job.host .. '/' .. job.module
  local lane = lane_key(job.queue, job.class, source)
  if call('ZREM', lane, job.id .. ':' .. job.need) == 0 then
    return false
  end
  call('ZREM', due_key(job.queue), job.id)
  count_bytes(job.queue, '-', job.size)
  refresh_lane(job.queue, job.class, source, call('ZRANGE', lane, '0', '0', 'WITHSCORES')[2])
  return true
end
