-- Prepended to every script that ends or checks a lease, after index.lua.
--
-- A leased job is in LEASES (by its expiry), in its node's CLAIMS (request to job), and counts among its host's ACTIVE ones.
-- Its `revision` is the fence: it changes with each claim, so only the latest holder's is right. `node` stays in the record
-- after the lease, so that the holder who repeats a request whose answer was lost can be told from a stranger.

-- The job's fields when `node` holds it under `revision`; otherwise nil.
local function held(id, node, revision)
  local found = call('HMGET', job_key(id), 'state', 'node', 'revision', 'queue', 'class', 'host', 'size', 'admitted',
    'request', 'attempts', 'mail')
  if found[2] ~= node or found[3] ~= revision then
    return nil
  end
  return {
    id = id, state = found[1], node = node, queue = found[4], class = found[5], host = found[6], size = found[7],
    admitted = found[8], request = found[9], attempts = tonumber(found[10]), mail = found[11],
  }
end

local function end_lease(job)
  call('ZREM', LEASES, job.id)
  call('HDEL', claims_key(job.node), job.request)
  call('HINCRBY', depth_key(job.queue), 'leased', -1)
  if call('HINCRBY', ACTIVE, job.host, -1) <= 0 then
    call('HDEL', ACTIVE, job.host)
  end
  put_back(job.host)
end
