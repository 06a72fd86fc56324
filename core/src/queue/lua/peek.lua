-- Reads the oldest entries of an inbox without taking them. What is longer than a job may be is not sent, only its length.
--
-- ARGV  1 queue   2 most: entries   3 longest: bytes of an entry   4 budget: bytes of the whole reply, about
-- Reply {microseconds of now, entry or length, ...}, the oldest first

local queue, longest, budget = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local found = {digits(now_micros())}
for back = 1, tonumber(ARGV[2]) do
  local entry = call('LINDEX', queue, -back)
  if not entry then
    break
  end
  budget = budget - 64
  if #entry > longest then
    found[#found + 1] = #entry
    -- It was copied into the interpreter all the same: a few of these are enough for one script.
    budget = budget - #entry / 8
  else
    found[#found + 1] = entry
    budget = budget - #entry
  end
  if budget < 0 then
    break
  end
end
return found
