-- Prepended, after keys.lua, to every script that asks whether a host may be asked, or changes the answer.
--
-- HOST holds what decides it: `active` transfers, over all nodes and all modules, and `active/MODULE`; `batch/REQUEST`, how many
-- leases are left of a claim that took several at once, which is one transfer until the last of them ends; `next_start`;
-- `failures` since `failing_since`, in a row, which make it rest until `rests_until` because of `code` and `text`;
-- `closed_until` and `closed_why`; and the operator's `transfers`, `transfers/MODULE` and `start_gap`, which win over the
-- asking node's.

local FAILING = P .. 'failing'

-- Nothing when the host may be asked; 0 when not before one of its transfers ends; or the time before which it may not. And
-- which of the reasons in kept_waiting.rs that is.
local function blocked(state, now, urgent, transfers)
  if tonumber(state[1] or 0) >= tonumber(state[3] and 1 or state[7] or transfers) then
    return 0, state[3] and 'rests' or 'transfers'
  end
  if state[8] and tonumber(state[2] or 0) >= tonumber(state[8]) then
    return 0, 'transfers'
  end
  local rests, gap, closed = tonumber(state[4] or 0), tonumber(state[5] or 0), not urgent and tonumber(state[6] or 0) or 0
  local free = math.max(rests, gap, closed)
  if free > now then
    return free, free == rests and 'rests' or free == closed and 'closed' or 'start_gap'
  end
end

-- What `blocked` is to judge: how one module of a host stands.
local function host_state(host, module)
  return call('HMGET', host_key(host), 'active', 'active/' .. module, 'failures', 'rests_until', 'next_start',
    'closed_until', 'transfers', 'transfers/' .. module, 'start_gap')
end
