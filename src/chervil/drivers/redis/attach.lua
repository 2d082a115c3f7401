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
-- The first write must be one that a server without memory carries out; then all are.
local lease = P .. '_chervil.lease.' .. consumer
if redis.call('PEXPIRE', lease, ARGV[6]) == 0 then
  redis.call('SET', lease, ARGV[5] .. '\n' .. table.concat(ARGV, '\n', 8), 'PX', ARGV[6])
end
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
