-- A host may not be asked until a time, but for urgent levels; or may be again.
--
-- ARGV  1 host   2 until: microseconds, or '' to open   3 why
-- Reply 1

local host = ARGV[1]
if ARGV[2] == '' then
  call('HDEL', host_key(host), 'closed_until', 'closed_why')
else
  call('HSET', host_key(host), 'closed_until', ARGV[2], 'closed_why', ARGV[3])
end
-- Also when it is closed: what was put aside until a later time is put aside again until this one.
put_back(host)
return 1
