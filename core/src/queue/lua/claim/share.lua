-- Part of claim.lua: weights. A node's pace is the bytes it was given / its weight; those with a lower one are behind it.

local PACE = P .. 'pace'
-- A node may be ahead of another by so many of the largest jobs it was given lately, and forgets a large one by so much with
-- each further one: less would cost more yielding than it gains in evenness.
local AHEAD_JOBS, FORGOTTEN = 2, 1 / 64
-- Who asked within this waits for a job now; who did not ask for the second is taken up at the others' pace when it comes
-- back; who did not for the third is none of the others.
local ASKING, BACK, GONE = 1000000, 2000000, 60000000
-- Nodes behind that are looked at.
local MOST_BEHIND = 8
-- A node that was away, or drained, or is new, starts at the lowest pace of those who are there: it is owed nothing for that
-- time; nor is one that found nothing to fit, and its pace is nobody's measure. One whose weight has changed keeps its lead over them in bytes.
local function take_up(away, old_weight)
  local nodes = call('ZRANGE', PACE, 0, MOST_BEHIND - 1, 'WITHSCORES')
  for i = 1, #nodes, 2 do
    local other = nodes[i] ~= node and call('HMGET', node_key(nodes[i]), 'asked', 'said')
    if other and tonumber(other[1] or 0) > now - BACK and other[2] ~= 'room' then
      local lowest = tonumber(nodes[i + 1])
      pace = away and math.max(pace, lowest) or lowest + (pace - lowest) * old_weight / weight
      break
    end
  end
  call('ZADD', PACE, exact(pace), node)
end

-- Nodes behind this one's share that wait for a job now: their levels and their room.
local function behind()
  local found = {}
  local line = pace - AHEAD_JOBS * largest / weight
  if line <= 0 then
    return found
  end
  for _, name in ipairs(call('ZRANGEBYSCORE', PACE, '-inf', '(' .. exact(line), 'LIMIT', 0, MOST_BEHIND)) do
    local other = call('HMGET', node_key(name), 'asking', 'asked', 'levels', 'room', 'inodes')
    if tonumber(other[2] or 0) < now - GONE then
      call('ZREM', PACE, name)
    elseif tonumber(other[1]) > now - ASKING and name ~= node then
      found[#found + 1] = {name = name, levels = other[3], room = tonumber(other[4]), inodes = tonumber(other[5])}
    end
  end
  return found
end

local waiting
-- Who is behind and could take this job; and the largest room of all behind in that level.
local function wanted_by(queue, bytes, files)
  local by, largest = nil, 0
  for _, other in ipairs(waiting) do
    if other.levels:find('/' .. queue .. '/', 1, true) then
      largest = math.max(largest, other.room)
      if bytes <= other.room and files <= other.inodes then
        by = other.name
      end
    end
  end
  return by, largest
end
