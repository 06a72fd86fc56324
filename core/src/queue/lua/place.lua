-- Prepended, after keys.lua, to the scripts that give jobs their place: admit.lua and relevel.lua.

-- Where a job stands in its level, and when it is lifted, in microseconds as text.
--
-- It is to *start* within its limit: its level's `max_wait` ('' when there is none), otherwise its own interval. So it is lifted
-- after 7/8 of it: the last eighth is for a slot to become free, and for others that are lifted with it. The deadline counts
-- from when the backup was made, or from the admission when the host's clock is ahead of ours.
local function place(order, max_wait, admitted, made, interval)
  local limit = max_wait == '' and interval or max_wait
  local due = admitted + tonumber(limit) * 7 / 8
  if order == 'deadline' then
    return digits(math.min(admitted, made) + interval), digits(due)
  end
  return digits(admitted), digits(due)
end
