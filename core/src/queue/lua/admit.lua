-- Moves parsed entries out of an inbox, each only if it is still the oldest one, and is still what was parsed.
--
-- ARGV  1 queue   2 longest: bytes of an entry that a job may have   3 order: age | deadline
--       4 max_wait of the level: microseconds, or ''   5 number of entries, then for each of them:
--       1 kind: job | report | refused | undecodable | oversize
--       2 raw: the entry as it was read; empty for oversize, where only its length matters
--       3 id   4 host   5 mail   6 body: JSON of the job, or of the report
--       7 size: bytes   8 need: BYTES:INODES of a disk   9 class   10 module
--      11 made, 12 interval: microseconds                                      (7 to 12: job)
--      13 outcome   14 revision                 (report, refused)
--      15 code   16 text                        (refused, undecodable, oversize: why it is kept for a person)
-- Reply {jobs, reports, dead, known, taken}: how many became what, and how many entries were taken in all. Fewer than were
--       given: another node took some meanwhile.
--
-- An entry whose job is known already, or has its report already, is taken out and nothing else.

local queue, longest, order, max_wait = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local started, now = now_micros(), nil
local jobs, reports, dead, known, taken = 0, 0, 0, 0, 0

local function bury_bytes(bytes, id, host, code, text)
  local letter = 'raw:' .. call('INCR', P .. 'letters')
  call('HSET', P .. letter, 'queue', queue, 'at', now, 'job', id, 'host', host, 'code', code, 'text', text)
  call('SET', P .. 'bytes:' .. letter, bytes)
  call('ZADD', DEAD, now, letter)
  dead = dead + 1
end

call('SADD', P .. 'queues', queue)
for entry = 0, tonumber(ARGV[5]) - 1 do
  local at = 5 + entry * 16
  local kind, raw, id, host, mail, body = unpack(ARGV, at + 1, at + 6)
  local size, need, class, module, made, interval = unpack(ARGV, at + 7, at + 12)
  local outcome, revision, code, text = unpack(ARGV, at + 13, at + 16)

  local tail = call('LINDEX', queue, -1)
  local same = tail and (tail == raw or (kind == 'oversize' and #tail > longest))
  if not same then
    break
  end
  call('RPOP', queue)
  taken = taken + 1
  -- The clock stands still within a script; a microsecond for each entry keeps their order. Each takes longer than that.
  now = digits(started + entry)
  call('DEL', P .. 'offered:' .. id)

  if kind == 'undecodable' or kind == 'oversize' then
    bury_bytes(tail, '', '', code, text)
  elseif ended(id, host) or call('EXISTS', job_key(id)) == 1 then
    known = known + 1
  elseif kind == 'job' then
    local first, due = place(order, max_wait, started + entry, made, interval)
    call('SET', body_key(id), body)
    -- What a claim reads and writes comes first: a small hash is searched from its front.
    call('HSET', job_key(id), 'state', 'ready', 'revision', 0, 'attempts', 0, 'admitted', now, 'size', size,
      'queue', queue, 'class', class, 'host', host, 'module', module, 'need', need, 'place', first, 'due', due,
      'made', made, 'interval', interval, 'mail', mail)
    add_ready({
      id = id, queue = queue, class = class, host = host, module = module, need = need, size = size, place = first, due = due,
    })
    jobs = jobs + 1
  else
    report(id, host, mail, revision, outcome, body)
    reports = reports + 1
    if kind == 'refused' then
      bury_bytes(tail, id, host, code, text)
    end
  end
end
return {jobs, reports, dead, known, taken}
