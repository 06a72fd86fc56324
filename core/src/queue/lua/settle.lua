-- Ends a job: its report goes to the stream, its lease ends, and it leaves the index, all at once.
--
-- ARGV  1 id   2 node   3 revision   4 outcome   5 body: the report as JSON
--       6 'final': over | 'bury': over, and kept for a person | 'copy': stored, and wanted on another node too
--       7 code, 8 text: why it is kept
--       9 host   10 mail ('1' where an agent will look)   11 '1' when this was a second copy
--      12 level   13 the node that has it, as a host   14 its module   15 body: the job as JSON   16 need   17 size   18 class
--      19 made, 20 interval: microseconds                              (12 to 20: copy)
-- Reply 'done' | 'already': it was settled so under this revision before | 'over': it has another end | 'lost': the lease is not the
--       node's any more, and the job goes on; with 'over' and 'lost' nothing was written
--
-- A job of which there is neither a record nor a memory has ended longer ago than ends are remembered, or this server has lost
-- it. Its holder has been away (a node that was off for a night), and may hold the only copy: the report is written again. The
-- catalog takes it for the same one, or ignores it, by its revision. It is copied again only where no copy's end is remembered.
--
-- A job that is wanted on another node too is ready again at once, in the level of its node's copies; `first` in its record says
-- by whom, and under which revision, it is settled for good, and is remembered as long as the copy's end (id/first). What became of
-- its copy is remembered apart (id/copy). A copy that is buried has no report (an empty body): the backup stays stored.

local id, node, revision, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local is_copy = ARGV[11] == '1'
local memory = is_copy and copy_of(id) or id

local function want_copy()
  local level, now = ARGV[12], now_micros()
  local copy = {
    id = id, queue = level, host = ARGV[13], module = ARGV[14], need = ARGV[16], size = ARGV[17], class = ARGV[18],
    place = digits(now), due = digits(now + tonumber(ARGV[20]) * 7 / 8),
  }
  call('SET', body_key(id), ARGV[15])
  call('HSET', job_key(id), 'state', 'ready', 'queue', level, 'class', copy.class, 'host', copy.host, 'module', copy.module,
    'need', copy.need, 'size', copy.size, 'place', copy.place, 'due', copy.due, 'admitted', copy.place, 'made', ARGV[19],
    'interval', ARGV[20], 'attempts', 0, 'node', node, 'revision', revision, 'mail', '', 'first', node .. ' ' .. revision)
  call('HDEL', job_key(id), 'refused_since', 'differed', 'code', 'text', 'reserve_after', 'reserve_tries')
  call('SET', ended_key(id .. '/first'), node .. ' ' .. revision, 'EX', COPY_ENDED_SECONDS)
  call('SADD', P .. 'queues', level)
  add_ready(copy)
  call('PUBLISH', P .. 'wake', level)
end

local function write_report()
  report(memory, ARGV[9], ARGV[10], revision, outcome, ARGV[5])
  if is_copy then
    remember_copy(id, revision, outcome)
  end
end

local job = held(id, node, revision)
if not job or job.state ~= 'leased' then
  local entry = ended(memory, ARGV[9])
  if entry and entry:match('^%S+ %S+') == revision .. ' ' .. outcome then
    return 'already'
  end
  -- Once somebody has stored it first, only its copy goes on.
  local first = not is_copy and (call('HGET', job_key(id), 'first') or call('GET', ended_key(id .. '/first')))
  if first then
    return first == node .. ' ' .. revision and 'already' or 'over'
  end
  if call('EXISTS', job_key(id)) == 1 then
    return 'lost'
  elseif entry then
    return 'over'
  end
  write_report()
  if ARGV[6] == 'copy' and not call('GET', ended_key(copy_of(id))) then
    want_copy()
  end
  return 'done'
end
if outcome == 'stored' and call('HDEL', host_key(job.host), 'failures', 'failing_since', 'rests_until', 'code', 'text') > 0 then
  -- The host gives again.
  call('ZREM', FAILING, job.host)
end
end_lease(job)
if ARGV[5] ~= '' then
  write_report()
end
if ARGV[6] == 'bury' then
  call('HSET', job_key(id), 'state', 'dead', 'code', ARGV[7], 'text', ARGV[8])
  call('ZADD', DEAD, digits(now_micros()), 'job:' .. id)
elseif ARGV[6] == 'copy' then
  want_copy()
else
  call('DEL', job_key(id), body_key(id))
end
return 'done'
