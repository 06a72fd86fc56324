-- A person throws a dead letter away. The report of its job stands.
--
-- ARGV  1 letter: 'job:ID' or 'raw:N'
-- Reply 'done', now or before

local letter = ARGV[1]
if call('ZREM', DEAD, letter) == 0 then
  return 'done'
end
call('DEL', P .. letter)
local id = letter:match('^job:(.*)$')
call('DEL', id and body_key(id) or P .. 'bytes:' .. letter)
return 'done'
