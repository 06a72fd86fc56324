-- Looks through a part of the job records, or through named ones, for those that pass a filter. Reads only.
--
-- ARGV  1 cursor of the last call, '0' at first; '' to look at the named ids alone   2 about how many keys to look at
--       3 queue   4 host   5 module   6 more than: bytes   7 admitted until: microseconds   8 states, as ',ready,held,'
--       9 queue that they could be moved to   10 how many texts, then the texts: each must be in the job's JSON; then the ids
--                                                                                           ('' or no text: any)
-- Reply {cursor, row, ...}: a row {id, state, queue, host, size, admitted, attempts, revision, node, body}, the body only when
--       texts were given; and {state} alone where all but the state fits. The cursor is '0' at the end.
--
-- What could be moved is in another queue, and no second copy: that waits where its node's copies wait, whoever asks.
--
-- A record that is there all along is found; one may be found twice while Redis grows its table.

local cursor, queue, host, module = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local more_than, until_micros, states = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local to, texts = ARGV[9], tonumber(ARGV[10])

local function body_fits(body)
  for i = 11, 10 + texts do
    if not body or not body:find(ARGV[i], 1, true) then
      return false
    end
  end
  return true
end

local found = {'0'}
local function look(id)
  local job = call('HMGET', job_key(id), 'state', 'queue', 'host', 'size', 'admitted', 'attempts', 'revision', 'node',
    'module', 'first')
  local fits = job[1] and (queue == '' or job[2] == queue) and (to == '' or job[2] ~= to and not job[10])
    and (host == '' or job[3] == host) and (module == '' or job[9] == module)
    and (more_than == 0 or tonumber(job[4]) > more_than) and (until_micros == 0 or tonumber(job[5]) <= until_micros)
  if not fits then
    return
  end
  local body = texts > 0 and call('GET', body_key(id)) or ''
  if not body_fits(body) then
    return
  end
  if states ~= '' and not states:find(',' .. job[1] .. ',', 1, true) then
    found[#found + 1] = {job[1]}
  else
    found[#found + 1] = {id, job[1], job[2], job[3], job[4], job[5], job[6], job[7], job[8] or '', body}
  end
end

if cursor == '' then
  for i = 11 + texts, #ARGV do
    look(ARGV[i])
  end
  return found
end
local scanned = call('SCAN', cursor, 'MATCH', P .. 'job:*', 'COUNT', ARGV[2])
found[1] = scanned[1]
for _, key in ipairs(scanned[2]) do
  look(key:sub(#P + 5))
end
return found
