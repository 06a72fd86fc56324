-- A person gives a buried job another chance: ready again, at its old place, its attempts counted anew. The revision goes on
-- from the last one, so the new report wins over the old one wherever both arrive.
--
-- ARGV  1 id
-- Reply 1 done, 0 there is no such buried job

local id = ARGV[1]
local job = call('HMGET', job_key(id), 'state', 'queue', 'class', 'host', 'size', 'admitted')
if job[1] ~= 'dead' then
  return 0
end
call('ZREM', DEAD, 'job:' .. id)
call('HSET', job_key(id), 'state', 'ready', 'attempts', 0, 'node', '')
add_ready(id, job[2], job[3], job[4], job[5], job[6])
call('PUBLISH', P .. 'wake', job[2])
return 1
