-- An operator puts a waiting job into another level. A held one stays held, a delayed one is tried at once.
--
-- ARGV  1 id   2 queue   3 order of the level: age | deadline   4 its max_wait: microseconds, or ''
-- Reply 'done', now or before; 'unknown'; 'copy': a second copy waits where its node's copies wait; or its state, in which it can't be moved

local id, queue = ARGV[1], ARGV[2]
local job = placed(id)
if not job then
  return 'unknown'
end
if call('HEXISTS', job_key(id), 'first') == 1 then
  return 'copy'
end
if job.queue == queue then
  return 'done'
end
local record = call('HMGET', job_key(id), 'admitted', 'made', 'interval', 'held_at', 'held_by', 'held_why')
-- First, since what can't be placed must stay where it is.
local new_place, new_due = place(ARGV[3], ARGV[4], record[1], record[2], record[3])
if not stop_waiting(job) then
  return job.state
end
job.queue, job.place, job.due = queue, new_place, new_due
call('HSET', job_key(id), 'queue', queue, 'place', job.place, 'due', job.due)
call('SADD', P .. 'queues', queue)
if job.state == 'held' then
  keep_back(job, record[4], record[5], record[6])
else
  make_ready(job)
end
return 'done'
