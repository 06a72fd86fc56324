-- A host reports a job that never becomes one to fetch: a script's failure. Repeated, it is written once.
--
-- ARGV  1 id   2 host   3 mail ('1' where an agent will look)   4 revision   5 outcome   6 body: the report as JSON
-- Reply 1 written, 0 already there

local id, host = ARGV[1], ARGV[2]
if ended(id, host) then
  return 0
end
report(id, host, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return 1
