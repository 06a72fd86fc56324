-- A node gives up a job whose record it can't read, so that it can't report it either: it is kept for a person.
--
-- ARGV  1 id   2 node   3 revision   4 code   5 text
-- Reply 1 done, now or before; 0 lost

local job = held(ARGV[1], ARGV[2], ARGV[3])
if not job or job.state == 'ready' or job.state == 'delayed' then
  return 0
end
if job.state == 'leased' then
  end_lease(job)
  call('HSET', job_key(job.id), 'state', 'dead', 'code', ARGV[4], 'text', ARGV[5])
  call('ZADD', DEAD, digits(now_micros()), 'job:' .. job.id)
end
return 1
