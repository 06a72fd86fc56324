-- Part of claim.lua: the policy of a level, which of its jobs a node gets when nothing else comes first.

-- Busy sources put aside in one call.
local MOST_ASIDE = 24
-- In the class of the room itself some jobs fit and some don't: so many of the oldest sources, and as many at random, are
-- looked at, and of each so many jobs. What fits is found sooner or later, whatever stands before it.
local BOUNDARY_SOURCES, BOUNDARY_JOBS = 3, 4

-- Counts decisions that keep jobs waiting, by the reasons in kept_waiting.rs.
local function kept_waiting(why, times)
  call('HINCRBY', P .. 'kept_waiting', why, times or '1')
end

local aside = 0
-- A source whose host may be asked now; otherwise it is put aside.
local function asked_now(level, class, source)
  local chosen, free, why = source_at(level, class, source)
  if not free then
    return chosen
  end
  kept_waiting(why)
  put_aside(level.queue, class, source, chosen.host, free)
  aside = aside + 1
end

-- Looks through a class where some fit and some don't: what to take there, if anything, and whether sources were put aside.
local function choose_at_boundary(level, class)
  local function first_that_fits(members)
    for _, member in ipairs(members) do
      -- Its files are read only when its bytes fit: of hundreds of members most are too large.
      if tonumber(member:match('^%d+', 38)) <= room then
        local bytes, files = needs(member, 38)
        if files <= inodes then
          return member, bytes, files
        end
      end
    end
  end
  local heads = heads_key(level.queue, class)
  local sources = call('ZRANGE', heads, 0, BOUNDARY_SOURCES - 1)
  if #sources == BOUNDARY_SOURCES then
    for _, source in ipairs(call('ZRANDMEMBER', heads, BOUNDARY_SOURCES)) do
      sources[#sources + 1] = source
    end
  end
  local best, met_busy, seen = nil, false, {}
  for _, source in ipairs(sources) do
    if not seen[source] then
      seen[source] = true
      -- Without their places, which cost more to print than all else here: only what fits is asked for its own.
      local lane = lane_key(level.queue, class, source)
      local oldest = call('ZRANGE', lane, 0, BOUNDARY_JOBS - 1)
      local member, bytes, files = first_that_fits(oldest)
      if not member and #oldest == BOUNDARY_JOBS then
        member, bytes, files = first_that_fits(call('ZRANDMEMBER', lane, BOUNDARY_JOBS))
      end
      local chosen = member and asked_now(level, class, source)
      if chosen then
        local first = tonumber(call('ZSCORE', lane, member))
        if not best or first < best.first then
          best, chosen.member, chosen.first, chosen.bytes, chosen.files = chosen, member, first, bytes, files
        end
      elseif member then
        met_busy = true
      end
    end
  end
  return best, met_busy
end

-- What to take from a level: class, source, member, what that needs, and the beginning of its lane where it stands first; or nil,
-- and whether sources were put aside. Only from classes above `above`.
local function choose(level, above)
  local met_busy, seen, at_boundary = false, {}, nil
  local room_class, last = class_of(room), 0
  while aside < MOST_ASIDE do
    local look_again = false
    -- Mostly the first class has it; only when not, all are looked at, by their first place.
    for _, class in ipairs(call('ZRANGE', classes_key(level.queue), 0, last)) do
      local number = tonumber(class)
      if number > above and number <= room_class and not seen[class] then
        local head = call('ZRANGE', heads_key(level.queue, class), '0', '1', 'WITHSCORES')
        if at_boundary and at_boundary.first < tonumber(head[2]) then
          return at_boundary
        end
        local chosen = asked_now(level, class, head[1])
        if not chosen then
          look_again = true
          break
        end
        local fits = first_fits(chosen, head[4])
        if fits then
          return chosen
        elseif fits == nil then
          -- Someone emptied the lane by hand.
          refresh_lane(level.queue, class, head[1], nil)
          aside, look_again = aside + 1, true
          break
        end
        -- The room's own class, or a folder of many files.
        seen[class] = true
        local other
        other, look_again = choose_at_boundary(level, class)
        if look_again then
          seen[class] = nil
          break
        end
        if other and (not at_boundary or other.first < at_boundary.first) then
          at_boundary = other
        end
      end
    end
    met_busy = met_busy or look_again
    if not look_again then
      if last == -1 then
        return at_boundary, met_busy
      end
      last = -1
    end
  end
  return nil, true
end
