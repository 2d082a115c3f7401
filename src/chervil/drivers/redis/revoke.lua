-- Remembers tasks that must not run. ARGV: P, now, until (both Unix s), task ids.
-- Answers those that are mentioned in a claim, ours or of a worker of Celery.
local P = ARGV[1]
local key = P .. '_chervil.revoked'
redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[2])
for place = 4, #ARGV do
  redis.call('ZADD', key, 'GT', ARGV[3], ARGV[place])
end
local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
if last then
  redis.call('EXPIREAT', key, math.ceil(tonumber(last)))
end

local held, wanted = {}, {}
for place = 4, #ARGV do
  wanted[ARGV[place]] = true
end
local function look(hash)
  for _, envelope in ipairs(redis.call('HVALS', hash)) do
    for id in string.gmatch(envelope, '"id": ?"([^"]+)"') do
      if wanted[id] then
        wanted[id] = nil
        held[#held + 1] = id
      end
    end
  end
end
for _, consumer in ipairs(redis.call('HKEYS', P .. '_chervil.consumers')) do
  look(P .. '_chervil.claims.' .. consumer)
end
look(P .. 'unacked')
return held
