-- Ends a job: its report goes to the stream, its lease ends, and it leaves the index, all at once.
--
-- ARGV  1 id   2 node   3 revision   4 outcome   5 body: the report as JSON
--       6 'final' or 'bury': over, or over and kept for a person   7 code, 8 text: why it is kept
--       9 host
-- Reply 'done' | 'already': it was settled under this revision before | 'lost': the lease is another's, nothing was written

local id, node, revision, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local job = held(id, node, revision)
if not job or job.state ~= 'leased' then
  local entry = ended(id, ARGV[9])
  if entry and entry:match('^(%d+) ') == revision then
    return 'already'
  end
  return 'lost'
end
end_lease(job)
report(id, job.host, job.mail, revision, outcome, ARGV[5])
if ARGV[6] == 'bury' then
  call('HSET', job_key(id), 'state', 'dead', 'code', ARGV[7], 'text', ARGV[8])
  call('ZADD', DEAD, digits(now_micros()), 'job:' .. id)
else
  call('DEL', job_key(id), body_key(id))
end
return 'done'
