-- A host offers a job. Pushed into its inbox, unless Redis knows it already.
--
-- ARGV  1 id   2 host   3 queue   4 body: the job as JSON
-- Reply {'ended', 'revision outcome written'} | {'known'} | {'pushed'}
--
-- The mark says that the job is in its inbox, so that hosts may offer again and again while no node admits. It is written
-- with the push and goes with it when the server loses its last second; it ends by itself after a day, lest an inbox emptied
-- by hand keep jobs out for ever. A job pushed twice all the same is made one by admission.

local id, host, queue, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local entry = ended(id, host)
if entry then
  return {'ended', entry}
end
if call('EXISTS', job_key(id)) == 1 then
  return {'known'}
end
if not call('SET', P .. 'offered:' .. id, queue, 'NX', 'EX', 86400) then
  return {'known'}
end
call('LPUSH', queue, body)
call('SADD', P .. 'queues', queue)
call('PUBLISH', P .. 'wake', queue)
return {'pushed'}
