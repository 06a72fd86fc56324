-- Gives a job back to be tried later by any node. The attempt stays counted, the reason stays with the job. What differed from its
-- announcement twice, wherever it was fetched, stays leased, for its holder to end it.
--
-- ARGV  1 id   2 node   3 revision   4 delay: microseconds   5 code   6 text   7 '1' when it differed from its announcement
-- Reply 1 done, now or by the same holder before; 2 to be given up; 0 lost

local job = held(ARGV[1], ARGV[2], ARGV[3])
if not job or job.state == 'dead' then
  return 0
end
if job.state ~= 'leased' then
  return 1
end
if ARGV[7] == '1' then
  local differed = call('HGET', job_key(job.id), 'differed')
  if differed and differed ~= ARGV[3] then
    return 2
  end
  call('HSET', job_key(job.id), 'differed', ARGV[3])
end
end_lease(job)
call('HSET', job_key(job.id), 'state', 'delayed', 'code', ARGV[5], 'text', ARGV[6])
-- It was not refused this time (host_failed.lua).
call('HDEL', job_key(job.id), 'refused_since')
call('ZADD', TIMERS, digits(now_micros() + tonumber(ARGV[4])), 'job:' .. job.id)
call('HINCRBY', depth_key(job.queue), 'delayed', 1)
count_bytes(job.queue, '', job.size)
return 1
