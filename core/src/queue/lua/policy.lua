-- The registry publishes what operators set.
--
-- ARGV  1 version   2 body: the policy as JSON
-- Reply '' written, or there already; else the version that is there and is kept: a later one, or another text of the same
--
-- One hash, so that version and body change together.

local policy = P .. 'policy'
local there = call('HMGET', policy, 'version', 'body')
local version = tonumber(there[1] or -1)
if version > tonumber(ARGV[1]) or version == tonumber(ARGV[1]) and there[2] ~= ARGV[2] then
  return there[1]
end
call('HSET', policy, 'version', ARGV[1], 'body', ARGV[2])
return ''
