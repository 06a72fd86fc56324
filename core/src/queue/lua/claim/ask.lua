-- First part of claim.lua: what is asked, what is remembered of the node that asks, and the words of the answer.

local node, request = ARGV[1], ARGV[2]
local room, inodes, weight = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])
local free_slots, transfers, batch_jobs = tonumber(ARGV[7]), ARGV[9], tonumber(ARGV[11])
local levels = (#ARGV - 13) / 2
local now = now_micros()

local me = call('HMGET', node_key(node), 'request', 'jobs', 'asked', 'pace', 'largest', 'turn', 'reserved', 'reserved_until',
  'weight')
local pace, largest, turn = tonumber(me[4] or 0), tonumber(me[5] or 0), tonumber(me[6] or 0)

local function needs(need)
  local bytes, files = need:match('^(%d+):(%d+)$')
  return tonumber(bytes), tonumber(files)
end

-- The class of the greatest power of two that is not above so many bytes.
local function class_of(bytes)
  local _, exponent = math.frexp(math.max(bytes, 1))
  return math.max(exponent - 1, 20)
end

local function remember(said, asking, ...)
  call('HSET', node_key(node), 'asked', digits(now), 'asking', asking and digits(now) or '0', 'ceiling', ARGV[5],
    'weight', ARGV[6], 'levels', ARGV[13], 'said', said, 'turn', turn, 'pace', digits(pace), ...)
end

local function nothing(said, yields_to)
  remember(said, weight > 0 and said ~= 'reserved', 'room', ARGV[3], 'inodes', ARGV[4], 'free', ARGV[7], 'yields_to', yields_to or '')
  return {said}
end

local function answer(reply, id, job, expires)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = id, call('GET', body_key(id)) or '', job[1], job[2]
  reply[n + 5], reply[n + 6], reply[n + 7] = expires, job[3], job[4]
end
