-- Prepended to every script that ends a job with a report, after keys.lua.
--
-- The report goes to the stream, and its existence is remembered twice: in the host's mailbox, until its agent has read it
-- (only where an agent made the job: seed clients never look), and for an hour under the job's id, so that a repeated request
-- is recognized even when the agent was quicker. The end of a second copy (`ID/copy`) is remembered for two days: a node that was
-- off as long, and settles the first one again, must not have it copied once more.

local REPORTS = P .. 'reports'
local MAILBOX_SECONDS, ENDED_SECONDS, COPY_ENDED_SECONDS = 30 * 86400, 3600, 2 * 86400

local function mailbox_key(host) return P .. 'mailbox:' .. host end
local function ended_key(id) return P .. 'ended:' .. id end
local function copy_of(id) return id .. '/copy' end

-- What is remembered of an end that is written now: `REVISION OUTCOME WRITTEN`, the last in microseconds.
local function entry_of(revision, outcome)
  return revision .. ' ' .. outcome .. ' ' .. digits(now_micros())
end

-- The entry of the job's report, when there is one; otherwise nil.
local function ended(id, host)
  return call('GET', ended_key(id)) or call('HGET', mailbox_key(host), id) or nil
end

local function remember_copy(id, revision, outcome)
  call('SET', ended_key(copy_of(id)), entry_of(revision, outcome), 'EX', COPY_ENDED_SECONDS)
end

local function report(id, host, mail, revision, outcome, body)
  call('XADD', REPORTS, '*', 'kind', 'report', 'body', body)
  local entry = entry_of(revision, outcome)
  call('SET', ended_key(id), entry, 'EX', ENDED_SECONDS)
  if mail == '1' then
    call('HSET', mailbox_key(host), id, entry)
    call('EXPIRE', mailbox_key(host), MAILBOX_SECONDS)
  end
end
