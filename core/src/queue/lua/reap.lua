-- Ends leases that nobody works on any more: expired, and their node silent, or not counting the job among its transfers
-- (its process was restarted, its watchdog gave the transfer up, or the answer to the claim was lost).
--
-- ARGV  1 most: leases   2 silence: microseconds without a beat after which a node is taken for dead
-- Reply the ids, ready again; their attempt stays counted
--
-- A clock that steps, or a Redis that was away, makes every lease and every beat look old at once. So calls that follow each
-- other by more than half of the silence, or backwards, only arm the reaper: it acts one silence later, when the living have
-- beaten and renewed again.

local most, silence = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_micros()
local REAPER = P .. 'reaper'

local seen = call('HMGET', REAPER, 'last', 'after')
local last, after = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
call('HSET', REAPER, 'last', digits(now))
if now < last or now - last > math.max(silence / 2, 1000000) then
  after = now + silence
  call('HSET', REAPER, 'after', digits(after))
end

-- A host that nobody has asked again for this long has no jobs any more, or is no host any more: it is not shown as failing for ever.
local FORGOTTEN_AFTER = 86400000000
for _, host in ipairs(call('ZRANDMEMBER', FAILING, 2)) do
  if tonumber(call('HGET', host_key(host), 'rests_until') or 0) < now - FORGOTTEN_AFTER then
    call('HDEL', host_key(host), 'failures', 'failing_since', 'rests_until', 'code', 'text')
    call('ZREM', FAILING, host)
  end
end

local reaped = {}
if now < after then
  return reaped
end

local function unwatched(id, node)
  local beat = tonumber(call('ZSCORE', P .. 'nodes_seen', node) or 0)
  return now - beat > silence or call('SISMEMBER', P .. 'running:' .. node, id) == 0
end

-- Expired leases of living nodes stay in front, so a few more are looked at than are wanted.
local expired = call('ZRANGEBYSCORE', LEASES, '-inf', digits(now), 'LIMIT', 0, most * 4)
for _, id in ipairs(expired) do
  if #reaped == most then
    break
  end
  local owner = call('HMGET', job_key(id), 'node', 'revision')
  if not owner[1] then
    -- Someone removed the record by hand.
    call('ZREM', LEASES, id)
  elseif unwatched(id, owner[1]) then
    local job = held(id, owner[1], owner[2])
    if job then
      end_lease(job)
      -- Without its node's name nobody is taken for the holder who repeats a request.
      call('HSET', job_key(id), 'state', 'ready', 'node', '')
      add_ready(job)
      call('PUBLISH', P .. 'wake', job.queue)
      reaped[#reaped + 1] = id
    else
      -- Its record was changed by hand, and must not stop the others.
      call('ZREM', LEASES, id)
    end
  end
end
return reaped
