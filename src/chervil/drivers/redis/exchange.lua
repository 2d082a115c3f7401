-- include common.lua
-- include join.lua
-- include storing.lua
-- include claiming.lua
-- Settles, stores what belongs to it, makes ready what is due, and claims.
--
-- KEYS: the lists in the order in which they are served, then the delayed sets that are to
--   be looked at.
-- ARGV: P, consumer, connection, now (Unix s), limit, number of the first claim, number
--   of lists, prefix of results, then how many there are of each of these, which follow:
--   outcomes (see store), message groups (see send), others of
--   (claim, action, 1 when the delivery counts, until, queue, reason, detail),
--   claims that are acknowledged, joins (see join.lua). Before them: prefix of groups.
-- Answers nothing when the lease was lost, 0 for a connection that was given up, else
--   {1 when nothing is ready, time of the next delayed one or '', 1 when there are
--    revocations, claim, envelope, claim, envelope...}
--
-- Most of the time less will do: see claim.lua and settle.lua.

local consumer, now, limit = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local number, lists, results = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local outcomes, groups = tonumber(ARGV[9]), tonumber(ARGV[10])
local others, acks, joining = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local claims = P .. '_chervil.claims.' .. consumer

local connection = redis.call('HGET', P .. '_chervil.consumers', consumer)
if not connection then
  return false
elseif connection ~= ARGV[3] then
  return 0
end

local function bury(list, queue, envelope, deliveries, reason, detail)
  local letter = redis.call('INCR', P .. '_chervil.letters')
  redis.call('HSET', P .. '_chervil.letter.' .. letter, 'queue', queue, 'list', list,
    'envelope', envelope, 'reason', reason, 'detail', detail, 'deliveries', deliveries,
    'died_at', ARGV[4])
  redis.call('ZADD', P .. '_chervil.dead.' .. queue, letter, letter)
  redis.call('ZADD', P .. '_chervil.dead', letter, letter)
end

local function settle(at)
  local field, action, counted, till, queue, reason, detail = unpack(ARGV, at, at + 6)
  local envelope = redis.call('HGET', claims, field)
  if not envelope then
    return
  end
  local own, deliveries, list = claim_parts(field)
  if action == 'dead' then
    bury(list, queue, envelope, deliveries, reason, detail)
  else
    deliveries = deliveries - (counted == '1' and 0 or 1)
    if action == 'defer' and tonumber(till) > now then
      local member = delayed_member(list, envelope, deliveries, consumer .. '.' .. own)
      redis.call('ZADD', P .. '_chervil.delayed.' .. queue, till, member)
    else
      redis.call('RPUSH', list, marked(envelope, deliveries, now * 1000))
    end
  end
  redis.call('HDEL', claims, field)
end

-- Makes ready what is due in a delayed set; the time of the next one, if there is one.
local function promote(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #first == 0 then
    return nil
  elseif tonumber(first[2]) > now then
    return first[2]
  end
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[4], 'LIMIT', 0, 1000)
  for _, member in ipairs(due) do
    local list, envelope, deliveries = delayed_parts(member)
    redis.call('LPUSH', list, marked(envelope, deliveries, now * 1000))
  end
  redis.call('ZREMRANGEBYRANK', key, 0, #due - 1)
  return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
end

local at = store(15, outcomes, results)
at = send(at, groups, now)
for _ = 1, others do
  settle(at)
  at = at + 7
end
for first = at, at + acks - 1, 1000 do
  redis.call('HDEL', claims, unpack(ARGV, first, math.min(first + 999, at + acks - 1)))
end
if joining > 0 then
  joins(at + acks, joining, ARGV[14])
end

local next_due = ''
for place = lists + 1, #KEYS do
  local due = promote(KEYS[place])
  if due and (next_due == '' or tonumber(due) < tonumber(next_due)) then
    next_due = due
  end
end
local answer = claim_and_look(lists, limit, claims, number, P .. '_chervil.revoked')
answer[2] = next_due
return answer
