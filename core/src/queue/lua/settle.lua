-- Ends a job: its report goes to the stream, its lease ends, and it leaves the index, all at once.
--
-- ARGV  1 id   2 node   3 revision   4 outcome   5 body: the report as JSON
--       6 'final' or 'bury': over, or over and kept for a person   7 code, 8 text: why it is kept
--       9 host   10 mail ('1' where an agent will look)
-- Reply 'done' | 'already': it was settled under this revision before | 'lost': the lease is another's, nothing was written
--
-- A job of which there is neither a record nor a memory has ended longer ago than ends are remembered, or this server has lost
-- it. Its holder has been away (a node that was off for a night), and may hold the only copy: the report is written again. The
-- catalog takes it for the same one, or ignores it, by its revision.

local id, node, revision, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local job = held(id, node, revision)
if not job or job.state ~= 'leased' then
  local entry = ended(id, ARGV[9])
  if entry then
    return entry:match('^(%d+) ') == revision and 'already' or 'lost'
  end
  if call('EXISTS', job_key(id)) == 1 then
    return 'lost'
  end
  report(id, ARGV[9], ARGV[10], revision, outcome, ARGV[5])
  return 'done'
end
if outcome == 'stored' and call('HDEL', host_key(job.host), 'failures', 'failing_since', 'rests_until', 'code', 'text') > 0 then
  -- The host gives again.
  call('ZREM', FAILING, job.host)
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
