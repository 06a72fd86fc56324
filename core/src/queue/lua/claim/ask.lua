-- First part of claim.lua: what is asked, what is remembered of the node that asks, and the words of the answer.

local node, request = ARGV[1], ARGV[2]
local room, inodes, weight = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local free_slots, transfers, batch_jobs = tonumber(ARGV[7]), ARGV[9], tonumber(ARGV[11])
local levels = (#ARGV - 14) / 2
local now = now_micros()
local now_text = digits(now)

local PACE = P .. 'pace'
local me = call('HMGET', node_key(node), 'request', 'jobs', 'asked', 'pace', 'largest', 'turn', 'reserved', 'reserved_until',
  'weight', 'levels', 'ceiling', 'said')
local pace, largest, turn = tonumber(me[4] or 0), tonumber(me[5] or 0), tonumber(me[6] or 0)

-- The two numbers of a need, from a place in a text on.
local function needs(text, from)
  local bytes, files = text:match('^(%d+):(%d+)$', from)
  return tonumber(bytes), tonumber(files)
end

-- The class of the greatest power of two that is not above so many bytes.
local function class_of(bytes)
  local _, exponent = math.frexp(math.max(bytes, 1))
  return math.max(exponent - 1, 20)
end

-- A pace with all its digits: rounded, small jobs would count as nothing, or as too much, under a large weight.
local function exact(number)
  return string.format('%.17g', number)
end

local function remember(said, asking, pace_text, ...)
  call('HSET', node_key(node), 'asked', now_text, 'asking', asking and now_text or '0', 'said', said, 'turn', turn,
    'pace', pace_text, ...)
  if me[9] ~= ARGV[6] or me[10] ~= ARGV[13] or me[11] ~= ARGV[5] then
    call('HSET', node_key(node), 'weight', ARGV[6], 'levels', ARGV[13], 'ceiling', ARGV[5])
  end
end

local function nothing(said, yields_to)
  remember(said, weight > 0 and said ~= 'reserved', exact(pace), 'room', ARGV[3], 'inodes', ARGV[4],
    'yields_to', yields_to or '')
  return {said}
end

local function answer(reply, id, revision, attempts, expires, admitted, queue)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = id, call('GET', body_key(id)) or '', revision, attempts
  reply[n + 5], reply[n + 6], reply[n + 7] = expires, admitted, queue
end

-- The same request again: the leases that it was given, as far as they have not ended.
if me[1] == request then
  local reply, expires = {'jobs'}, digits(now + tonumber(ARGV[8]))
  for id in me[2]:gmatch('%S+') do
    local job = call('HMGET', job_key(id), 'revision', 'attempts', 'admitted', 'queue', 'state', 'node', 'request')
    if job[5] == 'leased' and job[6] == node and job[7] == request then
      call('ZADD', LEASES, 'XX', expires, id)
      answer(reply, id, job[1], job[2], expires, job[3], job[4])
    end
  end
  if reply[2] then
    return reply
  end
end
if weight == 0 then
  call('ZREM', PACE, node)
  return nothing('yields')
end
