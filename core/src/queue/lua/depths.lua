-- Counts what waits.
--
-- ARGV  queues
-- Reply for each {inbox, ready, delayed, leased, bytes, oldest, held}: counts as text; in microseconds the admission of the
--       ready job that comes to its waiting limit first, or '' when none is ready
--
-- Costs a few looks for each queue, however many jobs wait.

local depths = {}
for i, queue in ipairs(ARGV) do
  local counts = call('HMGET', depth_key(queue), 'delayed', 'leased', 'bytes', 'held')
  local first = call('ZRANGE', due_key(queue), 0, 0)[1]
  depths[i] = {
    digits(call('LLEN', queue)), digits(call('ZCARD', due_key(queue))), counts[1] or '0', counts[2] or '0',
    counts[3] or '0', first and call('HGET', job_key(first), 'admitted') or '', counts[4] or '0',
  }
end
return depths
