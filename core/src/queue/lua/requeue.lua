-- An operator gives a job another chance: ready at once, at its old place, its attempts counted anew. Of a job that was given up,
-- the revision goes on from the last one, so the new report wins over the old one wherever both arrive. A job that a node is
-- fetching is taken from it: without its node's name in the record, nobody is taken for the holder who repeats a request.
--
-- ARGV  1 id
-- Reply 'done', now or before; 'unknown'; 'held': let it go instead

local id = ARGV[1]
local job = placed(id)
if not job then
  return 'unknown'
end
if job.state == 'ready' then
  return 'done'
elseif job.state == 'held' then
  return 'held'
elseif job.state == 'dead' then
  call('ZREM', DEAD, 'job:' .. id)
elseif job.state == 'leased' then
  local holder = call('HMGET', job_key(id), 'node', 'revision')
  end_lease(held(id, holder[1], holder[2]))
else
  stop_waiting(job)
end
call('HSET', job_key(id), 'attempts', 0, 'node', '')
make_ready(job)
return 'done'
