-- Prepended to every script that ends or checks a lease, after index.lua and aside.lua.
--
-- A leased job is in LEASES (by its expiry), and its claim counts among its host's active transfers.
-- Its `revision` is the fence: it changes with each claim, so only the latest holder's is right. `node` stays in the record
-- after the lease, so that the holder who repeats a request whose answer was lost can be told from a stranger.

-- The job's fields when `node` holds it under `revision`; otherwise nil.
local function held(id, node, revision)
  local found = call('HMGET', job_key(id), 'node', 'revision', 'request', 'batch', 'attempts', 'mail')
  if found[1] ~= node or found[2] ~= revision then
    return nil
  end
  local job = placed(id)
  if not job then
    return nil
  end
  job.node, job.request, job.batch = node, found[3], tonumber(found[4] or 1)
  job.attempts, job.mail = tonumber(found[5]), found[6]
  return job
end

local function one_less(key, field)
  local left = call('HINCRBY', key, field, -1)
  if left <= 0 then
    call('HDEL', key, field)
  end
  return left
end

local function end_lease(job)
  call('ZREM', LEASES, job.id)
  call('HINCRBY', depth_key(job.queue), 'leased', -1)
  local host = host_key(job.host)
  if job.batch == 1 or one_less(host, 'batch/' .. job.request) <= 0 then
    one_less(host, 'active')
    one_less(host, 'active/' .. job.module)
  end
  put_back(job.host)
end
