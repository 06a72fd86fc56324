-- Part of claim.lua: weights. A node's pace is the bytes it was given / its weight; those with a lower one are behind it.

-- Who asked within this waits for a job now; who did not ask for the second is none of the others.
local ASKING, GONE = 1000000, 60000000
-- A node that was away, or drained, or is new, starts at the lowest pace of those who are there: it is owed nothing for that
-- time; nor is one that found nothing to fit, and its pace is nobody's measure. One whose weight has changed keeps its lead over them in bytes.
local function take_up(away, old_weight)
  local nodes = call('ZRANGE', PACE, '0', MOST_BEHIND, 'WITHSCORES')
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

if away or old_weight ~= weight then
  take_up(away or old_weight == 0, old_weight)
end

-- Nodes behind this one's share that wait for a job now. Each is looked up when it comes to it: mostly the first one wants what
-- there is.
if not names then
  find_behind()
end
local looked_up, waiting = 0, {}
local function nth_waiting(n)
  while not waiting[n] and names[looked_up + 1] do
    looked_up = looked_up + 1
    local name = names[looked_up]
    local other = call('HMGET', node_key(name), 'asking', 'asked', 'levels', 'room', 'inodes')
    if tonumber(other[2] or 0) < now - GONE then
      call('ZREM', PACE, name)
    elseif tonumber(other[1]) > now - ASKING and tonumber(other[1]) <= now and name ~= node then
      waiting[#waiting + 1] = {name = name, levels = other[3], room = tonumber(other[4]), inodes = tonumber(other[5])}
    end
  end
  return waiting[n]
end

-- Who is behind and could take this job.
local function wanted_by(queue, bytes, files)
  local n, other = 1, nth_waiting(1)
  while other do
    if other.levels:find('/' .. queue .. '/', 1, true) and bytes <= other.room and files <= other.inodes then
      return other.name
    end
    n = n + 1
    other = nth_waiting(n)
  end
end

-- Who is behind and takes whatever this node could of a level, so that its jobs need no look: all in a class take less than twice
-- its bytes, and each file at least a block of 4 KiB for its two inodes.
local function all_wanted_by(queue)
  if not nth_waiting(1) then
    return nil
  end
  -- Mostly one of them takes whatever this node could.
  local by = wanted_by(queue, room, inodes)
  if by then
    return by
  end
  local bytes = 0
  for _, class in ipairs(call('ZRANGE', classes_key(queue), '0', '-1')) do
    bytes = math.max(bytes, 2 ^ (class + 1))
  end
  if bytes == 0 then
    return nil
  end
  return wanted_by(queue, math.min(room, bytes), math.min(inodes, bytes / 1024))
end

-- The largest room of all who are behind and ask for a level.
local function largest_room(queue)
  local most, n, other = 0, 1, nth_waiting(1)
  while other do
    if other.levels:find('/' .. queue .. '/', 1, true) then
      most = math.max(most, other.room)
    end
    n = n + 1
    other = nth_waiting(n)
  end
  return most
end

-- Mostly one of them asks for the same levels and could take whatever this one could: then nothing else needs a look.
local function yields_at_once()
  local n, other = 1, nth_waiting(1)
  while other and (other.levels ~= ARGV[13] or other.room < room or other.inodes < inodes) do
    n = n + 1
    other = nth_waiting(n)
  end
  if other then
    for number = 1, levels do
      if call('EXISTS', classes_key(level_at(number).queue)) == 1 then
        return other.name
      end
    end
  end
end
if room > 0 and not is_reserved and not comes_first(TIMERS) then
  local name = yields_at_once()
  if name then
    return nothing('yields', name)
  end
end
