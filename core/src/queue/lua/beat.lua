-- A node says that it lives, and what it works on.
--
-- ARGV  1 node   2 body: the beat as JSON   3... ids of its running transfers
-- Reply 1

local node = ARGV[1]
call('HSET', P .. 'nodes', node, ARGV[2])
call('ZADD', P .. 'nodes_seen', digits(now_micros()), node)
local running = P .. 'running:' .. node
call('DEL', running)
for i = 3, #ARGV do
  call('SADD', running, ARGV[i])
end
return 1
