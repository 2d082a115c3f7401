-- include common.lua
-- How much queues hold. ARGV: P, number of suffixes, the suffixes of a queue's lists (''
--   first), queues; all that are known when there are none.
-- Answers, for each queue, {queue, ready, delayed, claimed, dead, the next message of
--   each list that has one...}
local suffixes = tonumber(ARGV[2])
local queues = { unpack(ARGV, 3 + suffixes) }
if #queues == 0 then
  queues = redis.call('HKEYS', P .. '_chervil.queues')
end

local claimed = {}
for _, consumer in ipairs(redis.call('HKEYS', P .. '_chervil.consumers')) do
  for _, field in ipairs(redis.call('HKEYS', P .. '_chervil.claims.' .. consumer)) do
    local _, _, list = claim_parts(field)
    claimed[list] = (claimed[list] or 0) + 1
  end
end

local answer = {}
for _, queue in ipairs(queues) do
  local row = { queue, 0, redis.call('ZCARD', P .. '_chervil.delayed.' .. queue), 0,
    redis.call('ZCARD', P .. '_chervil.dead.' .. queue) }
  for place = 3, 2 + suffixes do
    local list = P .. queue .. ARGV[place]
    local length = redis.call('LLEN', list)
    row[2] = row[2] + length
    row[4] = row[4] + (claimed[list] or 0)
    if length > 0 then
      row[#row + 1] = redis.call('LINDEX', list, -1)
    end
  end
  answer[#answer + 1] = row
end
return answer
