-- include common.lua
-- Ends a consumer and gives back what it holds.
--
-- ARGV: P, consumer, now (Unix s), 1 when it died: then its deliveries count, and nothing
--   happens while its lease lasts; else queues that it served. (Others that serve them
--   say so again with their next renewal.)
-- Answers how many messages.
local consumer, now, died = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local consumers, claims = P .. '_chervil.consumers', P .. '_chervil.claims.' .. consumer
local lease = P .. '_chervil.lease.' .. consumer
if redis.call('HEXISTS', consumers, consumer) == 0 then
  return 0
elseif died and redis.call('EXISTS', lease) == 1 then
  return 0
end

-- The first write must be one that a server without memory carries out; then all are.
redis.call('DEL', lease)
local held = redis.call('HGETALL', claims)
local found = {}
for place = 1, #held, 2 do
  local number, deliveries, list = claim_parts(held[place])
  local envelope = marked(held[place + 1], deliveries - (died and 0 or 1), now * 1000)
  found[#found + 1] = { number, list, envelope }
end
-- What was claimed first is pushed last, where it is served first.
table.sort(found, function(left, right) return left[1] > right[1] end)
for _, claim in ipairs(found) do
  redis.call('RPUSH', claim[2], claim[3])
end
redis.call('DEL', claims)
redis.call('HDEL', consumers, consumer)
for place = 5, #ARGV do
  redis.call('HSET', P .. '_chervil.queues', ARGV[place], 0)
end
return #found
