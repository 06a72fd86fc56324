-- A host offers a job. Pushed into its inbox, unless Redis knows it already.
--
-- ARGV  1 id   2 host   3 queue   4 body: the job as JSON
-- Reply {'ended', 'revision outcome'} | {'known'} | {'pushed'}
--
-- An offer repeated while the first is still in the inbox is pushed twice; admission makes it one.

local id, host, queue, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local entry = ended(id, host)
if entry then
  return {'ended', entry}
end
if call('EXISTS', job_key(id)) == 1 then
  return {'known'}
end
call('LPUSH', queue, body)
call('SADD', P .. 'queues', queue)
call('PUBLISH', P .. 'wake', queue)
return {'pushed'}
