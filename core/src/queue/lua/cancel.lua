-- An operator takes a job out of the queue, with its one report. A node that is fetching it finds its lease lost, and publishes
-- and settles nothing. Of a second copy there is no report: its backup stays stored.
--
-- ARGV  1 id   2 states in which it is meant, as ',ready,held,'   3 revision of its record as it was read
--       4 revision of the report   5 body: the report as JSON                 (3 to 5 are missing when there was no record)
-- Reply 'done', now or before; 'unknown'; its state, in which it is not meant, or 'dead': it has its report already; 'changed':
--       claimed since it was read, read it again

local id, meant, seen, revision, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local job = placed(id)
if not job then
  -- What ended last, the job or its second copy.
  local own, copy = call('GET', ended_key(id)) or '0 ', call('GET', ended_key(copy_of(id))) or '0 '
  local last = tonumber(own:match('^%d+')) >= tonumber(copy:match('^%d+')) and own or copy
  return last:match('^%d+ (%a+)') == 'cancelled' and 'done' or 'unknown'
end
if job.state == 'dead' or not meant:find(',' .. job.state .. ',', 1, true) then
  return job.state
end
local record = call('HMGET', job_key(id), 'revision', 'mail', 'node', 'first')
if record[1] ~= seen then
  return 'changed'
end
if not stop_waiting(job) then
  end_lease(held(id, record[3], seen))
end
if record[4] then
  remember_copy(id, revision, 'cancelled')
else
  report(id, job.host, record[2], revision, 'cancelled', body)
end
call('DEL', job_key(id), body_key(id))
return 'done'
