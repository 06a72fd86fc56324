-- A person throws a dead letter away. The report of its job stands; that of a second copy none was made is remembered.
--
-- ARGV  1 letter: 'job:ID' or 'raw:N'
-- Reply 'done', now or before

local letter = ARGV[1]
if call('ZREM', DEAD, letter) == 0 then
  return 'done'
end
local id = letter:match('^job:(.*)$')
if id and call('HEXISTS', job_key(id), 'first') == 1 then
  remember_copy(id, call('HGET', job_key(id), 'revision') or '0', 'failed')
end
call('DEL', P .. letter)
call('DEL', id and body_key(id) or P .. 'bytes:' .. letter)
return 'done'
