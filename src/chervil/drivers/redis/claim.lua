-- include claiming.lua
-- Claims, and does nothing else: what an idle node does when it is told of a message.
--
-- KEYS: the lists in the order in which they are served. ARGV: hash of the consumers, hash
--   of the claims, set of the revoked, consumer, connection, limit, number of the first claim.
-- Answers as exchange.lua does; of the delayed it knows nothing.
local connection = redis.call('HGET', ARGV[1], ARGV[4])
if not connection then
  return false
elseif connection ~= ARGV[5] then
  return 0
end
return claim_and_look(#KEYS, tonumber(ARGV[6]), ARGV[2], tonumber(ARGV[7]), ARGV[3])
