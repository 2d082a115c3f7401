-- include common.lua
-- The last of us leaves a queue to workers of Celery: its delayed messages that say
-- themselves when they are due go where kombu would hold them, in the list.
--
-- ARGV: P, queue, how many of the first to leave alone, how many to look at.
-- Answers how many were looked at and how many of these stay; nothing when there is nothing
-- to do: others of ours serve the queue, or nobody of Celery's is there.
local queue, first, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local nodes = {}
for _, consumer in ipairs(redis.call('HKEYS', P .. '_chervil.consumers')) do
  local lease = redis.call('GET', P .. '_chervil.lease.' .. consumer)
  local node
  for line in string.gmatch(lease or '', '[^\n]+') do
    if not node then
      node = line
      nodes[node] = true
    elseif line == queue then
      return false
    end
  end
end

-- Each worker of Celery binds a queue of its own for remote control.
local others = false
for _, binding in ipairs(redis.call('SMEMBERS', P .. '_kombu.binding.celery.pidbox')) do
  local node = string.match(binding, '([^\6\22]+)%.celery%.pidbox$')
  others = others or (node and not nodes[node])
end
if not others then
  return false
end

local key = P .. '_chervil.delayed.' .. queue
local members = redis.call('ZRANGE', key, first, first + most - 1)
local stay = 0
for _, member in ipairs(members) do
  local list, envelope, deliveries = delayed_parts(member)
  if string.find(envelope, '"eta": ?"') then
    if deliveries > 0 then
      envelope = marked(envelope, deliveries, 0)
    end
    redis.call('LPUSH', list, envelope)
    redis.call('ZREM', key, member)
  else
    stay = stay + 1
  end
end
return { #members, stay }
