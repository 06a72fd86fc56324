-- A person gives a buried job another chance: ready again, at its old place, its attempts counted anew. The revision goes on
-- from the last one, so the new report wins over the old one wherever both arrive.
--
-- ARGV  1 id
-- Reply 1 done, 0 there is no such buried job

local id = ARGV[1]
local job = placed(id)
if not job or job.state ~= 'dead' then
  return 0
end
call('ZREM', DEAD, 'job:' .. id)
call('HSET', job_key(id), 'state', 'ready', 'attempts', 0, 'node', '')
add_ready(job)
call('PUBLISH', P .. 'wake', job.queue)
return 1
