-- Counts what waits.
--
-- ARGV  queues
-- Reply for each {inbox, ready, delayed, leased, bytes, oldest, held}: counts as text; in microseconds the first admission of
--       two ready jobs, the one that is first in its level and the one that comes to its waiting limit first; '' when none is ready
--
-- Costs a few looks for each queue, however many jobs wait.

-- The longest wait stands at the front of one of two orders: levels in order of age give the oldest first, but for hosts that may
-- not be asked now; and of jobs with one limit the oldest comes to it first.
local function oldest_of(queue)
  local first = {call('ZRANGE', due_key(queue), 0, 0)[1]}
  local class = call('ZRANGE', classes_key(queue), 0, 0)[1]
  local source = class and call('ZRANGE', heads_key(queue, class), 0, 0)[1]
  local member = source and call('ZRANGE', lane_key(queue, class, source), 0, 0)[1]
  first[#first + 1] = member and member:sub(1, 36)
  local oldest
  for _, id in ipairs(first) do
    local admitted = call('HGET', job_key(id), 'admitted')
    if admitted and tonumber(admitted) and (not oldest or tonumber(admitted) < tonumber(oldest)) then
      oldest = admitted
    end
  end
  return oldest or ''
end

local depths = {}
for i, queue in ipairs(ARGV) do
  local counts = call('HMGET', depth_key(queue), 'delayed', 'leased', 'bytes', 'held')
  depths[i] = {
    digits(call('LLEN', queue)), digits(call('ZCARD', due_key(queue))), counts[1] or '0', counts[2] or '0',
    counts[3] or '0', oldest_of(queue), counts[4] or '0',
  }
end
return depths
