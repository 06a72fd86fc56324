-- Gives a job back to be tried later by any node. The attempt stays counted, the reason stays with the job.
--
-- ARGV  1 id   2 node   3 revision   4 delay: microseconds   5 code   6 text
-- Reply 1 done, now or by the same holder before; 0 lost

local job = held(ARGV[1], ARGV[2], ARGV[3])
if not job or job.state == 'dead' then
  return 0
end
if job.state ~= 'leased' then
  return 1
end
end_lease(job)
call('HSET', job_key(job.id), 'state', 'delayed', 'code', ARGV[5], 'text', ARGV[6])
-- It was not refused this time (host_failed.lua).
call('HDEL', job_key(job.id), 'refused_since')
call('ZADD', TIMERS, digits(now_micros() + tonumber(ARGV[4])), 'job:' .. job.id)
call('HINCRBY', depth_key(job.queue), 'delayed', 1)
count_bytes(job.queue, '', job.size)
return 1
