-- Prepended, after index.lua, to what operators do with jobs.
--
-- A job waits when it is ready, delayed or held. A held one is in no index: only its record, with `held_at`, `held_by` and
-- `held_why`, and the count of its level know of it.

-- Takes a job out of where it waits; false when it doesn't wait. Its `state` is the caller's to write.
local function stop_waiting(job)
  if job.state == 'ready' then
    remove_ready(job)
  elseif job.state == 'delayed' then
    call('ZREM', TIMERS, 'job:' .. job.id)
    call('HINCRBY', depth_key(job.queue), 'delayed', -1)
    count_bytes(job.queue, '-', job.size)
  elseif job.state == 'held' then
    call('HDEL', job_key(job.id), 'held_at', 'held_by', 'held_why')
    call('HINCRBY', depth_key(job.queue), 'held', -1)
    count_bytes(job.queue, '-', job.size)
  else
    return false
  end
  return true
end

local function keep_back(job, at, by, why)
  call('HSET', job_key(job.id), 'state', 'held', 'held_at', at, 'held_by', by, 'held_why', why)
  call('HINCRBY', depth_key(job.queue), 'held', 1)
  count_bytes(job.queue, '', job.size)
end

local function make_ready(job)
  call('HSET', job_key(job.id), 'state', 'ready')
  add_ready(job)
  call('PUBLISH', P .. 'wake', job.queue)
end
