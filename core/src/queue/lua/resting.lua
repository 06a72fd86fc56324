-- The hosts that are left alone for now because they did not give, the one that has failed for longest first. Reads only.
--
-- ARGV  1 most
-- Reply {how many there are, then for each {host, failing since, failures, rests until, code, text}}   times in microseconds

local FAILING = P .. 'failing'
local resting = {call('ZCARD', FAILING)}
local hosts = call('ZRANGE', FAILING, 0, ARGV[1] - 1, 'WITHSCORES')
for i = 1, #hosts, 2 do
  local state = call('HMGET', host_key(hosts[i]), 'failures', 'rests_until', 'code', 'text')
  resting[#resting + 1] = {hosts[i], hosts[i + 1], state[1] or '0', state[2] or '0', state[3] or '', state[4] or ''}
end
return resting
