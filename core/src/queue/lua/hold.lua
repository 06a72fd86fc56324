-- An operator keeps a waiting job from being claimed. It stays known, counts as waiting, and is offered to no node.
--
-- ARGV  1 id   2 who   3 why
-- Reply 'done', now or before; 'unknown'; or its state, in which it can't be held

local job = placed(ARGV[1])
if not job then
  return 'unknown'
end
if job.state == 'held' then
  return 'done'
end
if not stop_waiting(job) then
  return job.state
end
keep_back(job, digits(now_micros()), ARGV[2], ARGV[3])
return 'done'
