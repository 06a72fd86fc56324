-- An operator gives a job another chance: ready at once, at its old place, its attempts counted anew. Of a job that was given up,
-- the revision goes on from the last one, so the new report wins over the old one wherever both arrive. A job that a node is
-- fetching is taken from it: without its node's name in the record, nobody is taken for the holder who repeats a request.
--
-- ARGV  1 id   2 states in which it is meant, as ',dead,delayed,'   3 request
-- Reply 'done', now or before; 'unknown'; or its state, in which it is not meant or can't be requeued ('held': let it go instead)
--
-- The same request again does nothing: a node may have the job by then.

local id, meant, request = ARGV[1], ARGV[2], ARGV[3]
local job = placed(id)
if not job then
  return 'unknown'
end
if call('HGET', job_key(id), 'requeued') == request then
  return 'done'
elseif job.state == 'ready' then
  call('HSET', job_key(id), 'requeued', request)
  return 'done'
elseif job.state == 'held' or not meant:find(',' .. job.state .. ',', 1, true) then
  return job.state
elseif job.state == 'dead' then
  call('ZREM', DEAD, 'job:' .. id)
elseif job.state == 'leased' then
  local holder = call('HMGET', job_key(id), 'node', 'revision')
  end_lease(held(id, holder[1], holder[2]))
else
  stop_waiting(job)
end
call('HSET', job_key(id), 'attempts', 0, 'node', '', 'requeued', request)
call('HDEL', job_key(id), 'refused_since', 'differed')
make_ready(job)
return 'done'
