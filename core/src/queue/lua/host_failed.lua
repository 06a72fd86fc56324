-- The host rests, longer each time in a row, because it can't be asked. The job is given back, the attempt not counted; unless it was
-- refused for too long, each time it was tried: then it stays leased, for its holder to end it. Each job has its own time
-- (`refused_since`), from its first refusal on: one module may refuse for good while the others of its host give.
--
-- ARGV  1 id   2 node   3 revision   4 first, 5 longest: microseconds of rest   6 code   7 text
--       8 microseconds after which it is given up
-- Reply 1 given back, now or by the same holder before; 2 to be given up; 0 lost
--
-- Transfers that were running side by side fail side by side: while the host rests already, that was the same failure. While
-- it has failures it may have one transfer at a time, which finds out; a stored job ends them (settle.lua). That one transfer is
-- another job's each time: this one stands behind the host's others until it is claimed again, lest one module that refuses
-- keep those of a good one waiting.

local job = held(ARGV[1], ARGV[2], ARGV[3])
if not job or job.state == 'dead' then
  return 0
end
if job.state ~= 'leased' then
  return 1
end
local host, now = host_key(job.host), now_micros()
local seen = call('HMGET', host, 'failures', 'rests_until')
local rests_until = tonumber(seen[2] or 0)
if now >= rests_until then
  local failures = tonumber(seen[1] or 0)
  rests_until = now + math.min(tonumber(ARGV[4]) * 2 ^ math.min(failures, 40), tonumber(ARGV[5]))
  call('HSET', host, 'failures', failures + 1, 'rests_until', digits(rests_until), 'code', ARGV[6], 'text', ARGV[7])
  call('HSETNX', host, 'failing_since', digits(now))
  call('ZADD', FAILING, 'NX', digits(now), job.host)
end
call('HSETNX', job_key(job.id), 'refused_since', digits(now))
if now - (tonumber(call('HGET', job_key(job.id), 'refused_since')) or now) >= tonumber(ARGV[8]) then
  return 2
end
end_lease(job)
call('HSET', job_key(job.id), 'state', 'ready', 'attempts', digits((job.attempts or 1) - 1), 'code', ARGV[6],
  'text', ARGV[7])
if rests_until > now then
  job.place = digits(math.max(now, tonumber(job.place) + rests_until - now))
  job.due = digits(math.max(rests_until, tonumber(job.due)))
end
add_ready(job)
return 1
