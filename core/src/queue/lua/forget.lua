-- Forgets a node that was taken out. Its backups stay in the catalog; it is known again with its next beat.
--
-- ARGV  1 node   2 silence: microseconds without a beat or a question after which it is taken for stopped
--       3 what a puller that has stopped says with its last beat, as why it is paused
-- Reply {'forgotten' | 'unknown', 0}; or why it is kept:
--       {'heard', 0}: it lives
--       {'leases', n}: it holds these; reaping puts them back when they have ended
--       {'copies', n}: jobs wait to be copied from it, the only node that has their backups
--
-- The only script that reads JSON, a beat's, and of that one word: nothing else tells an orderly end.
--
-- Costs a look at each lease, and at each dead letter while these are few, for a person who asks.

local node, now = ARGV[1], now_micros()
local asked = call('HGET', node_key(node), 'asked')
local heard = call('ZSCORE', P .. 'nodes_seen', node)
if not asked and not heard and call('HEXISTS', P .. 'nodes', node) == 0 and call('EXISTS', node_key(node)) == 0 then
  return {'unknown', 0}
end
asked, heard = tonumber(asked) or 0, tonumber(heard) or 0
-- A stopped one need not become silent first. Started again it beats at once; had that been lost, its questions tell.
local _, beat = pcall(cjson.decode, call('HGET', P .. 'nodes', node) or '')
local has_stopped = type(beat) == 'table' and beat.paused == ARGV[3] and asked <= heard
if not has_stopped and now - math.max(asked, heard) <= tonumber(ARGV[2]) then
  return {'heard', 0}
end

local leases = 0
for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
  if call('HGET', job_key(id), 'node') == node then
    leases = leases + 1
  end
end
if leases > 0 then
  return {'leases', leases}
end

-- What is being copied from it may have to be begun anew.
local level = P .. 'copies@' .. node
local copies = call('ZCARD', due_key(level))
for _, count in ipairs(call('HMGET', depth_key(level), 'delayed', 'held', 'leased')) do
  copies = copies + math.max(tonumber(count) or 0, 0)
end
if copies > 0 then
  return {'copies', copies}
end

call('HDEL', P .. 'nodes', node)
call('ZREM', P .. 'nodes_seen', node)
call('ZREM', P .. 'pace', node)
call('DEL', node_key(node), P .. 'running:' .. node)
for _, budget in ipairs({'fetch', 'restore'}) do
  call('HDEL', P .. 'budget:' .. budget, 'node:' .. node)
end
-- As a host that its copies were fetched from.
call('HDEL', host_key('@' .. node), 'failures', 'failing_since', 'rests_until', 'code', 'text')
call('ZREM', FAILING, '@' .. node)

-- The level of its copies stays as long as a copy that was given up may be retried in it.
local MOST_LETTERS = 10000
local in_use = call('ZCARD', DEAD) > MOST_LETTERS
for _, letter in ipairs(in_use and {} or call('ZRANGE', DEAD, 0, -1)) do
  in_use = in_use or call('HGET', P .. letter, 'queue') == level
end
if not in_use then
  call('SREM', P .. 'queues', level)
  call('DEL', depth_key(level))
end
return {'forgotten', 0}
