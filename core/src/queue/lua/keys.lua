-- Prepended to every script: the keys, the clock, and what waits in bytes. `P` (the prefix) is set by the caller.

local call = redis.call

-- Redis prints 14 digits of a Lua number, a time in microseconds has 16: numbers become text here, never by themselves. Constants
-- are written as text where they are arguments: printing a number costs as much as a small command.
local function digits(number)
  return string.format('%.0f', number)
end

local function now_micros()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function job_key(id) return P .. 'job:' .. id end
local function body_key(id) return P .. 'body:' .. id end
local function depth_key(queue) return P .. 'depth:' .. queue end
local function due_key(queue) return P .. 'due:' .. queue end
local function classes_key(queue) return P .. 'classes:' .. queue end
local function heads_key(queue, class) return P .. 'heads:' .. queue .. '/' .. class end
local function lane_key(queue, class, source) return P .. 'lane:' .. queue .. '/' .. class .. '/' .. source end
local function host_key(host) return P .. 'host:' .. host end
local function aside_key(host) return P .. 'aside:' .. host end
local function node_key(node) return P .. 'node:' .. node end
local LEASES, TIMERS, DEAD = P .. 'leases', P .. 'timers', P .. 'dead'

-- Bytes that wait. A size beyond all reason (a petabyte and more) is counted neither when it comes nor when it goes, and one that was
-- damaged by hand must not stop a transition.
local function count_bytes(queue, sign, size)
  if size and #size <= 15 then
    redis.pcall('HINCRBY', depth_key(queue), 'bytes', sign .. size)
  end
end
