-- Counts what waits.
--
-- ARGV  queues
-- Reply for each {inbox, ready, delayed, leased, bytes, oldest}: counts as text; the oldest ready job's admission in
--       microseconds, or '' when none is ready
--
-- Costs one look per queue, class and busy host, however many jobs wait.

local depths = {}
local oldest = {}
for _, queue in ipairs(ARGV) do
  local head = call('ZRANGE', classes_key(queue), 0, 0, 'WITHSCORES')
  oldest[queue] = head[2]
end
for _, host in ipairs(call('HKEYS', ACTIVE)) do
  for _, lane in ipairs(call('SMEMBERS', lifted_key(host))) do
    local class, queue = lane:match('^(%d+)/(.*)$')
    local head = call('ZRANGE', lane_key(queue, class, host), 0, 0, 'WITHSCORES')
    if head[2] and (not oldest[queue] or tonumber(head[2]) < tonumber(oldest[queue])) then
      oldest[queue] = head[2]
    end
  end
end
for i, queue in ipairs(ARGV) do
  local counts = call('HMGET', depth_key(queue), 'ready', 'delayed', 'leased', 'bytes')
  depths[i] = {
    digits(call('LLEN', queue)), counts[1] or '0', counts[2] or '0', counts[3] or '0', counts[4] or '0',
    oldest[queue] or '',
  }
end
return depths
