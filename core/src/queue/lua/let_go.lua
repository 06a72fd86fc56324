-- An operator lets a held job go on: ready, at its old place.
--
-- ARGV  1 id
-- Reply 'done', now or before; 'unknown'

local job = placed(ARGV[1])
if not job then
  return 'unknown'
end
if job.state == 'held' then
  stop_waiting(job)
  make_ready(job)
end
return 'done'
