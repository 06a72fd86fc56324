-- Extends a lease that is still its holder's. To commit is the same question, asked before the file gets its final name: from
-- then on the holder only settles, so the answer has to hold that long.
--
-- ARGV  1 id   2 node   3 revision   4 lease: microseconds
-- Reply 1 yours, 0 lost

local job = held(ARGV[1], ARGV[2], ARGV[3])
if not job or job.state ~= 'leased' then
  return 0
end
call('ZADD', LEASES, 'XX', digits(now_micros() + tonumber(ARGV[4])), job.id)
return 1
