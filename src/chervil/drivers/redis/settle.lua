-- include storing.lua
-- Stores outcomes and acknowledges their messages, and does nothing else: what a node does
-- for a task that ended while the queues are empty.
--
-- ARGV: P, hash of the consumers, hash of the claims, consumer, connection, prefix of
--   results, number of outcomes, outcomes (see store), claims.
-- Answers nothing when the lease was lost, 0 for a connection that was given up, else 1.
local connection = redis.call('HGET', ARGV[2], ARGV[4])
if not connection then
  return false
elseif connection ~= ARGV[5] then
  return 0
end
local at = store(8, tonumber(ARGV[7]), ARGV[6])
for first = at, #ARGV, 1000 do
  redis.call('HDEL', ARGV[3], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
return 1
