-- Everything that decides about one job, as it stands at one moment. Reads only.
--
-- ARGV  1 id
-- Reply {microseconds of now, the job's fields, 'revision outcome written' or '', the level in whose inbox it is or '', its host's fields,
--        its timer or '', its lease's end or '', how many ready ones of its level are lifted before it or '',
--        {id, node, ...} of what is fetched from its host, {node, heard at, beat, its fields} for each node}
--       fields are names and values in turns
--
-- Costs a look at each node and each lease, for a person who asks.

local id = ARGV[1]
local record = call('HGETALL', job_key(id))
local job = placed(id)

local function score(set, member)
  return call('ZSCORE', set, member) or ''
end

local host, fetched, before = {}, {}, false
if job then
  host = call('HGETALL', host_key(job.host))
  before = call('ZRANK', due_key(job.queue), id)
  for _, other in ipairs(call('ZRANGE', LEASES, 0, -1)) do
    local found = call('HMGET', job_key(other), 'host', 'node')
    if found[1] == job.host and other ~= id then
      fetched[#fetched + 1] = other
      fetched[#fetched + 1] = found[2] or ''
    end
  end
end

local nodes = {}
local seen = call('ZRANGE', P .. 'nodes_seen', 0, -1, 'WITHSCORES')
for i = 1, #seen, 2 do
  nodes[#nodes + 1] = {seen[i], seen[i + 1], call('HGET', P .. 'nodes', seen[i]) or '', call('HGETALL', node_key(seen[i]))}
end
return {
  digits(now_micros()), record, call('GET', ended_key(id)) or '', call('GET', P .. 'offered:' .. id) or '', host,
  score(TIMERS, 'job:' .. id), score(LEASES, id), before and tostring(before) or '', fetched, nodes,
}
