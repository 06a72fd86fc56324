-- Gives some of a level's jobs the place that its rule says now.
--
-- ARGV  1 queue   2 order: age | deadline   3 max_wait: microseconds, or ''   4 cursor: 0 at first   5 about how many
-- Reply the next cursor, '0' at the end
--
-- Ready jobs are found in DUE, whose scan gives each that is there all the time at least once. What is delayed, held or leased
-- keeps its old place until the rule changes again: that is one job's turn, not a lost one.

local queue, order, max_wait = ARGV[1], ARGV[2], ARGV[3]
local scanned = call('ZSCAN', due_key(queue), ARGV[4], 'COUNT', ARGV[5])
for i = 1, #scanned[2], 2 do
  local id = scanned[2][i]
  local job = placed(id)
  local times = call('HMGET', job_key(id), 'admitted', 'made', 'interval')
  if job and times[1] then
    local first, due = place(order, max_wait, times[1], times[2], times[3])
    if first ~= job.place or due ~= job.due then
      local source = job.host .. '/' .. job.module
      local lane = lane_key(queue, job.class, source)
      call('HSET', job_key(id), 'place', first, 'due', due)
      call('ZADD', due_key(queue), 'XX', due, id)
      call('ZADD', lane, 'XX', first, id .. ':' .. job.need)
      refresh_lane(queue, job.class, source, call('ZRANGE', lane, 0, 0, 'WITHSCORES')[2])
    end
  end
end
return scanned[1]
