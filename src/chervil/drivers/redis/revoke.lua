-- Remembers tasks that must not run. ARGV: P, now, until (both Unix s), task ids.
local key = ARGV[1] .. '_chervil.revoked'
redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[2])
for place = 4, #ARGV do
  redis.call('ZADD', key, 'GT', ARGV[3], ARGV[place])
end
local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
if last then
  redis.call('EXPIREAT', key, math.ceil(tonumber(last)))
end
return 1
