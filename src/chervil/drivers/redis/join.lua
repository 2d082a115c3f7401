-- Chords: what Celery's workers and ours count together (source of the keys:
-- celery/celery celery/backends/redis.py). G is the prefix of groups' keys:
--
--   G<join>.j   zset    what arrived; score: its place
--   G<join>.d   set     "<task id>:<place>" of those that arrived
--   G<join>.s   string  how many there are;  G<join>.t: how many more were added
--   G<join>.c   string  who sends the body, then "done"
--   P_chervil.fired.<join>  string  the member with which we fired
--   P_chervil.trigger.<join> string what somebody was to publish then
--   P_chervil.unsent  zset  joins of which nobody said that it is; score: Unix time

local KEPT, CLOSED = 90 * 86400000, 86400000

local function begin(group, size)
  redis.call('SET', group .. '.s', size, 'PX', KEPT)
end

local function close(join, group)
  redis.call('UNLINK', group .. '.j', group .. '.d', group .. '.s', group .. '.t',
    P .. '_chervil.fired.' .. join, P .. '_chervil.trigger.' .. join)
  redis.call('SET', group .. '.c', 'done', 'PX', CLOSED)
end

-- The members that ARGV describes from place at on, as
--   size (0: see .s), list and envelope of the trigger, member that fires if one has
--   failed or '', n, n times (member, place or '+inf', value)
-- again: the Unix time, where the trigger is to be published by who calls; then a member
-- that has fired does so again.
-- Answers the next place and the member that fires, if one does.
local function arrive(at, join, group, again)
  local size, list, envelope, failed, n = unpack(ARGV, at, at + 4)
  at = at + 5
  local after = at + 3 * n
  local fired = P .. '_chervil.fired.' .. join
  if redis.call('GET', group .. '.c') == 'done' then
    local first = again and redis.call('GET', fired)
    for place = at, after - 1, 3 do
      if ARGV[place] == first then
        return after, first
      end
    end
    return after
  end
  if size ~= '0' then
    redis.call('SET', group .. '.s', size, 'PX', KEPT)
  end
  for place = at, after - 1, 3 do
    local member, index, value = ARGV[place], ARGV[place + 1], ARGV[place + 2]
    if redis.call('SADD', group .. '.d', member .. ':' .. index) == 1 then
      redis.call('ZADD', group .. '.j', index, value)
    end
  end
  for _, suffix in ipairs({ '.j', '.d', '.s', '.t' }) do
    redis.call('PEXPIRE', group .. suffix, KEPT)
  end
  local wanted = tonumber(redis.call('GET', group .. '.s') or 0)
  local last = failed
  if failed == '' then
    wanted = wanted + tonumber(redis.call('GET', group .. '.t') or 0)
    if wanted == 0 or redis.call('ZCARD', group .. '.j') < wanted then
      return after
    end
    last = ARGV[after - 3]
  end
  if not redis.call('SET', group .. '.c', 'done', 'PX', KEPT, 'NX') then
    return after -- one of Celery's workers sends the body in this moment
  end
  redis.call('SET', fired, last, 'PX', KEPT)
  if list ~= '' then
    redis.call('LPUSH', list, envelope)
  end
  if again then
    redis.call('SET', P .. '_chervil.trigger.' .. join, envelope, 'PX', KEPT)
    redis.call('ZADD', P .. '_chervil.unsent', again, join)
  end
  return after, last
end

-- What ARGV describes from place at on: groups of
--   'a', join, what arrive takes; or 'b', join, size; or 'c', join
-- Answers the next place, and the joins and members that fired.
local function joins(at, groups, G, again)
  local fired = {}
  for _ = 1, groups do
    local what, join = ARGV[at], ARGV[at + 1]
    if what == 'a' then
      local member
      at, member = arrive(at + 2, join, G .. join, again)
      if member then
        fired[#fired + 1] = join
        fired[#fired + 1] = member
      end
    elseif what == 'b' then
      begin(G .. join, ARGV[at + 2])
      at = at + 3
    else
      close(join, G .. join)
      at = at + 2
    end
  end
  return at, fired
end
