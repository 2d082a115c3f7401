-- include common.lua
-- Dead letters go: back to their queues as new messages, or for good.
--
-- ARGV: P, now (Unix s), 'replay' or 'drop', numbers of letters. Answers how many.
local count = 0
for place = 4, #ARGV do
  local key = P .. '_chervil.letter.' .. ARGV[place]
  local queue, list, envelope = unpack(redis.call('HMGET', key, 'queue', 'list', 'envelope'))
  if queue then
    if ARGV[3] == 'replay' then
      redis.call('LPUSH', list, marked(envelope, 0, tonumber(ARGV[2]) * 1000))
    end
    redis.call('DEL', key)
    redis.call('ZREM', P .. '_chervil.dead.' .. queue, ARGV[place])
    redis.call('ZREM', P .. '_chervil.dead', ARGV[place])
    count = count + 1
  end
end
return count
