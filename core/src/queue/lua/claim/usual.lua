-- Part of claim.lua: the usual case, in which nothing comes before the first job of the first level that has one, and it can be
-- taken as it stands. What the rarer cases need comes after it, since all functions are made anew each time a script runs.

-- A node may be ahead of another by so many of the largest jobs it was given lately: less would cost more yielding than it
-- gains in evenness.
local AHEAD_JOBS = 2
-- Nodes behind that are looked at.
local MOST_BEHIND = '8'
-- Who did not ask for this long is taken up at the others' pace when it comes back.
local BACK = 2000000

local function level_at(number)
  local at = 13 + number * 2
  return {queue = ARGV[at], urgent = ARGV[at + 1] == '1'}
end

-- The names of nodes behind this one's share.
local names
local function find_behind()
  local line = pace - AHEAD_JOBS * largest / weight
  names = line > 0 and call('ZRANGEBYSCORE', PACE, '-inf', '(' .. exact(line), 'LIMIT', '0', MOST_BEHIND) or {}
  return names[1]
end

-- A source as it may be chosen; and, when its host may not be asked now, until when, and why (`blocked`).
local function source_at(level, class, source)
  local host, module = source:match('^([^/]*)/(.*)$')
  local state = host_state(host, module)
  return {level = level, class = class, source = source, host = host, module = module, state = state},
    blocked(state, now, level.urgent, transfers)
end

-- Whether the first job of the source's lane fits: it is chosen then. Nil when the lane is empty.
local function first_fits(chosen, next_head)
  -- No more than one job of a class that has nothing small enough for a batch of two.
  local most = 2 ^ (chosen.class + 1) > tonumber(ARGV[12]) and tonumber(chosen.class) > 20 and '1' or ARGV[11]
  local lane = call('ZRANGE', lane_key(chosen.level.queue, chosen.class, chosen.source), '0', most, 'WITHSCORES')
  if not lane[1] then
    return nil
  end
  local bytes, files = needs(lane[1], 38)
  if bytes > room or files > inodes then
    return false
  end
  chosen.member, chosen.bytes, chosen.files, chosen.lane, chosen.next_head = lane[1], bytes, files, lane, next_head
  return true
end

-- Levels take turns, one at each claim: what is overdue in the one whose turn it is comes before the usual order. So the lowest
-- level starts in time under a flood of the first, and a flood of overdue jobs there leaves the first its share. All levels of
-- copies, one for each node, have one turn together.
local turn_level
if levels > 0 then
  local own = tonumber(ARGV[14])
  turn = turn % (own < levels and own + 1 or own) + 1
  turn_level = level_at(turn <= own and turn or own + 1 + now % (levels - own))
end

local function comes_first(key)
  return call('ZCOUNT', key, '-inf', now_text) > 0
end

local away, old_weight = tonumber(me[3] or 0) < now - BACK or me[12] == 'room', tonumber(me[9] or 0)
local is_reserved = me[7] and tonumber(me[8]) > now
if room > 0 and turn_level and not away and old_weight == weight and not is_reserved and not find_behind() and not comes_first(TIMERS)
  and not comes_first(due_key(turn_level.queue)) then
  for number = 1, levels do
    local level = level_at(number)
    local class = call('ZRANGE', classes_key(level.queue), '0', '0')[1]
    if class then
      local head = call('ZRANGE', heads_key(level.queue, class), '0', '1', 'WITHSCORES')
      local chosen, free = source_at(level, class, head[1])
      if not free and first_fits(chosen, head[4]) then
        return take(chosen)
      end
      break
    end
  end
end
