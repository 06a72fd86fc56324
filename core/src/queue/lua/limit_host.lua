-- Sets a host's own limits, in place of those set before.
--
-- ARGV  1 host   2... field and value by turns: transfers | transfers/MODULE | start_gap
-- Reply 1

local host = ARGV[1]
for _, field in ipairs(call('HKEYS', host_key(host))) do
  if field == 'transfers' or field == 'start_gap' or field:sub(1, 10) == 'transfers/' then
    call('HDEL', host_key(host), field)
  end
end
if #ARGV > 1 then
  call('HSET', host_key(host), unpack(ARGV, 2))
end
-- What the old limits put aside is judged by the new ones.
put_back(host)
return 1
