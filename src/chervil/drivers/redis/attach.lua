-- A consumer begins, or comes back on a new connection, or renews its lease.
--
-- ARGV: P, consumer, connection ('' when the lease is renewed), 1 for a new consumer,
--   node, milliseconds of the lease, Unix ms until which the queues count as served, queues.
-- Answers nothing when the lease was lost, else the claims: {claim, envelope...}, or {}
-- when the lease is renewed.
local P, consumer, connection = ARGV[1], ARGV[2], ARGV[3]
local consumers = P .. '_chervil.consumers'
if ARGV[4] ~= '1' and redis.call('HEXISTS', consumers, consumer) == 0 then
  return false
end
redis.call('SET', P .. '_chervil.lease.' .. consumer, ARGV[5], 'PX', ARGV[6])
local served = {}
for place = 8, #ARGV do
  served[#served + 1] = ARGV[place]
  served[#served + 1] = ARGV[7]
end
redis.call('HSET', P .. '_chervil.queues', unpack(served))
if connection == '' then
  return {}
end
redis.call('HSET', consumers, consumer, connection)
return redis.call('HGETALL', P .. '_chervil.claims.' .. consumer)
