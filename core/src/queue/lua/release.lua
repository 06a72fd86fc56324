-- Gives a job back at once, as if it had not been claimed: the attempt is not counted, its old place in the line is its again.
--
-- ARGV  1 id   2 node   3 revision
-- Reply 1 done, now or by the same holder before; 0 lost

local job = held(ARGV[1], ARGV[2], ARGV[3])
if not job or job.state == 'dead' then
  return 0
end
if job.state ~= 'leased' then
  return 1
end
end_lease(job)
call('HSET', job_key(job.id), 'state', 'ready', 'attempts', digits((job.attempts or 1) - 1))
add_ready(job)
call('PUBLISH', P .. 'wake', job.queue)
return 1
