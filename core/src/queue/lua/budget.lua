-- Leases a node its share of a rate that all nodes of the cluster take from together.
--
-- BUDGET is a hash: `cap`, and for each node `node:ID` with "RATE UNTIL WEIGHT DEMAND". The rates that are recorded and not past
-- their time never add up to more than the cap: a node gets at most what the others leave, and one whose share shrinks is
-- recorded with what it still uses until it asks again and says that it uses less. So an answer that is lost harms nobody.
-- Shares are max-min by weight: nobody gets more than it can use while another wants more; what nobody wants is spread by
-- weight, so that a node that begins need not ask first.
--
-- ARGV  1 budget   2 node   3 weight   4 demand, 5 used now, 6 cap: bytes a second   7 lease: microseconds
-- Reply rate, sum of the weights of all nodes that hold a lease

local key = P .. 'budget:' .. ARGV[1]
local cap, lease, now = tonumber(ARGV[6]), tonumber(ARGV[7]), now_micros()
local me = { rate = 0, weight = math.max(tonumber(ARGV[3]), 1), demand = math.min(tonumber(ARGV[4]), cap) }

-- Every node scales what it holds when it hears of a new cap, and so do we.
local before = tonumber(call('HGET', key, 'cap') or cap)
local scale = before > 0 and cap / before or 1

local nodes, weights, others = { me }, me.weight, 0
local all = call('HGETALL', key)
for i = 1, #all, 2 do
  local rate, till, weight, demand = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
  if rate and tonumber(till) <= now then
    call('HDEL', key, all[i])
  elseif rate then
    rate = math.floor(rate * scale)
    if all[i] == 'node:' .. ARGV[2] then
      me.rate = math.min(rate, tonumber(ARGV[5]))
    else
      others = others + rate
      weights = weights + weight
      nodes[#nodes + 1] = { weight = tonumber(weight), demand = math.min(tonumber(demand), cap) }
    end
    if scale ~= 1 then
      call('HSET', key, all[i], table.concat({ digits(rate), till, weight, demand }, ' '))
    end
  end
end

-- Who wants no more than its part at the present level gets that; the level rises for the rest, until none is left over.
local function share()
  local left, open, sum = cap, nodes, weights
  while true do
    local still, level = {}, left / sum
    for _, node in ipairs(open) do
      if node.demand > level * node.weight then
        still[#still + 1] = node
      else
        left, sum = left - node.demand, sum - node.weight
      end
    end
    if #still == 0 then
      return me.demand + left * me.weight / weights
    end
    if #still == #open then
      return me.demand > level * me.weight and level * me.weight or me.demand
    end
    open = still
  end
end

local rate = math.floor(math.max(0, math.min(share(), cap - others)))
local record = { digits(math.max(rate, me.rate)), digits(now + lease), digits(me.weight), digits(me.demand) }
call('HSET', key, 'cap', digits(cap), 'node:' .. ARGV[2], table.concat(record, ' '))
call('PEXPIRE', key, digits(math.ceil(lease / 1000)))
return { digits(rate), digits(weights) }
