-- A person gives an inbox entry that was refused or could not be read another chance: it goes back into its inbox, to be admitted
-- by what nodes there are now. What was remembered of its end is forgotten, or admission would take it for a repetition.
--
-- ARGV  1 letter: 'raw:N'
-- Reply 'done', now or before

local letter = ARGV[1]
local kept = call('HMGET', P .. letter, 'queue', 'job', 'host')
local bytes = call('GET', P .. 'bytes:' .. letter)
if not kept[1] or not bytes then
  return 'done'
end
if kept[2] and kept[2] ~= '' then
  call('DEL', ended_key(kept[2]))
  call('HDEL', mailbox_key(kept[3] or ''), kept[2])
end
call('LPUSH', kept[1], bytes)
call('ZREM', DEAD, letter)
call('DEL', P .. letter, P .. 'bytes:' .. letter)
call('PUBLISH', P .. 'wake', kept[1])
return 'done'
